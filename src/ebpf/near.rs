//! A table by the number of a process that finds those it found a moment ago without a look into the hash.

use crate::pids::Pids;

/// So many were found a moment ago: of each remainder of a number the last one. A power of two.
const GUESSES: usize = 64;

/// Something of each process.
///
/// What is kept of one that was found is its place, and no more: who is there says itself whose it is. So nothing has to be
/// forgotten when it changes, goes, or another has its number.
pub(super) struct Near<T> {
    /// Where each is in `all`.
    places: Pids<usize>,
    /// With the number of whose it is; `None` where nobody is.
    all: Vec<Option<(i32, T)>>,
    free: Vec<usize>,
    guesses: [usize; GUESSES],
}

impl<T> Default for Near<T> {
    fn default() -> Near<T> {
        Near { places: Pids::default(), all: Vec::new(), free: Vec::new(), guesses: [0; GUESSES] }
    }
}

impl<T> Near<T> {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn contains(&self, pid: i32) -> bool {
        self.places.contains_key(&pid)
    }

    pub(super) fn get(&self, pid: i32) -> Option<&T> {
        self.all[*self.places.get(&pid)?].as_ref().map(|(_, it)| it)
    }

    /// The same, to be changed. Quick for who was asked for last among those with its remainder.
    #[inline]
    pub(super) fn get_mut(&mut self, pid: i32) -> Option<&mut T> {
        let guess = self.guesses[pid as usize % GUESSES];
        let at = match self.all.get(guess) {
            Some(Some((there, _))) if *there == pid => guess,
            _ => self.look(pid)?,
        };
        self.all[at].as_mut().map(|(_, it)| it)
    }

    #[cold]
    #[inline(never)]
    fn look(&mut self, pid: i32) -> Option<usize> {
        let at = *self.places.get(&pid)?;
        self.guesses[pid as usize % GUESSES] = at;
        Some(at)
    }

    /// Puts it there; gives what was there before.
    pub(super) fn insert(&mut self, pid: i32, it: T) -> Option<T> {
        let before = self.remove(pid);
        let at = self.free.pop().unwrap_or(self.all.len());
        match self.all.get_mut(at) {
            Some(place) => *place = Some((pid, it)),
            None => self.all.push(Some((pid, it))),
        }
        self.places.insert(pid, at);
        before
    }

    pub(super) fn remove(&mut self, pid: i32) -> Option<T> {
        let at = self.places.remove(&pid)?;
        self.free.push(at);
        self.all[at].take().map(|(_, it)| it)
    }

    /// All, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i32, &T)> {
        self.all.iter().flatten().map(|(pid, it)| (*pid, it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(near: &mut Near<&'static str>, pid: i32) -> Option<&'static str> {
        let quick = near.get_mut(pid).copied();
        assert_eq!(quick, near.get(pid).copied(), "{pid}");
        quick
    }

    #[test]
    fn who_is_gone_is_not_found_and_who_has_its_place_is_not_taken_for_it() {
        let mut near = Near::default();
        near.insert(7, "seven");
        assert_eq!(of(&mut near, 7), Some("seven"));
        assert_eq!(near.remove(7), Some("seven"));
        assert_eq!(of(&mut near, 7), None);
        // It has the place, and the remainder, of the one before.
        let other = 7 + GUESSES as i32;
        near.insert(other, "other");
        assert_eq!((of(&mut near, 7), of(&mut near, other)), (None, Some("other")));
        near.insert(7, "again");
        assert_eq!((of(&mut near, 7), of(&mut near, other)), (Some("again"), Some("other")));
    }

    #[test]
    fn what_is_put_in_the_place_of_another_is_found_instead() {
        let mut near = Near::default();
        near.insert(1, "one");
        assert_eq!(of(&mut near, 1), Some("one"));
        near.insert(2, "two");
        assert_eq!(near.insert(1, "new"), Some("one"));
        assert_eq!((of(&mut near, 1), of(&mut near, 2)), (Some("new"), Some("two")));
        *near.get_mut(1).unwrap() = "changed";
        assert_eq!(of(&mut near, 1), Some("changed"));
        assert_eq!(near.len(), 2);
    }

    #[test]
    fn a_place_that_was_left_is_used_again() {
        let mut near = Near::default();
        for pid in 0..1000 {
            near.insert(pid, "it");
            assert_eq!(near.remove(pid), Some("it"));
        }
        assert!(near.is_empty() && near.all.len() == 1, "{} places", near.all.len());
        for pid in 0..100 {
            near.insert(pid, "it");
        }
        let mut all: Vec<i32> = near.iter().map(|(pid, _)| pid).collect();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(near.contains(99) && !near.contains(100));
    }
}
