//! The choices of calls (`calls=`) that the programs have.

use super::*;
use crate::cred;

/// So often it is tried to see who uses which, undisturbed.
const TRIES: u32 = 16;

/// A choice of calls.
pub(super) struct Filter {
    pub(super) calls: Calls,
    /// In whose share it is: one of those who use it, or have used it last.
    owner: u32,
}

impl Maps {
    /// Forgets the filters that nobody uses, and finds those whose owner uses them no more in the share of who does. Where births and
    /// deaths leave it no time to look at all there are, it forgets none.
    fn forget_filters(&mut self) {
        let Some(users) = (0..TRIES).find_map(|_| self.users_of_filters()) else { return };
        for (made, user) in self.made.iter_mut().zip(users) {
            *made = made.take().zip(user).map(|(made, owner)| Filter { owner, ..made });
        }
    }

    /// Of each filter one who uses it, its owner where he does; `None` where `procs` was changed meanwhile: a child may be born
    /// where the walk has been, and its parent die where it comes to.
    fn users_of_filters(&self) -> Option<Vec<Option<u32>>> {
        let before = self.changes();
        let mut users: Vec<Option<u32>> = vec![None; self.made.len()];
        for (_, [_, _, _, filter, owner, _]) in self.procs.iter().take(2 * self.most as usize).flatten() {
            let Some(at) = (filter as usize).checked_sub(1) else { continue };
            if let (Some(user), Some(Some(made))) = (users.get_mut(at), self.made.get(at))
                && (user.is_none() || made.owner == owner)
            {
                *user = Some(owner);
            }
        }
        (self.changes() == before).then_some(users)
    }

    /// The number of a filter. Of a new one: no owner but root has more than are free.
    pub(super) fn filter(&mut self, calls: &Calls, owner: u32) -> Result<u32> {
        let is_it = |made: &Option<Filter>| made.as_ref().is_some_and(|made| made.calls == *calls);
        if let Some(at) = self.made.iter().position(is_it) {
            return Ok(at as u32 + 1);
        }
        let left = |maps: &Maps| {
            let all = maps.made.iter().flatten();
            let own = all.clone().filter(|made| made.owner == owner).count();
            cred::share_left(maps.filters_max, all.count(), own, owner)
        };
        if left(self) == 0 {
            self.forget_filters();
        }
        if left(self) == 0 {
            let what = match self.made.iter().flatten().count() == self.filters_max {
                true => "too many different calls= at once".into(),
                false => format!("too many different calls= at once for uid {owner}"),
            };
            return Err(Error::NoSpace { what: what.into() });
        }
        let at = self.made.iter().position(Option::is_none).unwrap_or_else(|| {
            self.made.push(None);
            self.made.len() - 1
        });
        let slot = at as u32 + 1;
        let mut words = [0; FILTER];
        words.iter_mut().zip(calls.words()).for_each(|(word, bits)| *word = bits);
        self.filters.set(slot, words, 0).map_err(full("filters"))?;
        self.made[at] = Some(Filter { calls: calls.clone(), owner });
        Ok(slot)
    }
}
