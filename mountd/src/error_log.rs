//! `error_log`: for each uid the last commands that failed, with the place and the reason.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;

use ktrace::Error;
use nix::errno::Errno;
use parking_lot::Mutex;

/// Failed commands kept for each uid.
const KEPT: usize = 8;
/// Users kept; the one whose last failure is oldest goes first.
const USERS: usize = 64;
/// Most characters of a line that are shown.
const SHOWN: usize = 120;
/// Most characters of a reason that are shown.
const REASON: usize = 512;

/// The failed commands of all users.
#[derive(Debug, Default)]
pub(crate) struct ErrorLog {
    users: Mutex<Users>,
}

#[derive(Debug, Default)]
struct Users {
    failed: HashMap<u32, Failed>,
    count: u64,
}

#[derive(Debug, Default)]
struct Failed {
    entries: VecDeque<String>,
    last: u64,
}

impl ErrorLog {
    /// Notes that `line`, written to `file` by `uid`, failed.
    pub(crate) fn note(&self, uid: u32, file: &str, line: &str, err: &Error) {
        let entry = entry(file, line, err);
        let mut users = self.users.lock();
        users.count += 1;
        let count = users.count;
        if users.failed.len() >= USERS
            && !users.failed.contains_key(&uid)
            && let Some(oldest) = users.failed.iter().min_by_key(|(_, f)| f.last).map(|(uid, _)| *uid)
        {
            users.failed.remove(&oldest);
        }
        let failed = users.failed.entry(uid).or_default();
        failed.last = count;
        if failed.entries.len() == KEPT {
            failed.entries.pop_front();
        }
        failed.entries.push_back(entry);
    }

    /// What a user reads, the newest last.
    pub(crate) fn text(&self, uid: u32) -> String {
        let users = self.users.lock();
        users.failed.get(&uid).map(|f| f.entries.iter().map(String::as_str).collect()).unwrap_or_default()
    }
}

/// The line as it was written, carets under the wrong word, errno and reason.
fn entry(file: &str, line: &str, err: &Error) -> String {
    let at = match err {
        Error::Invalid { at, .. } => *at,
        _ => None,
    };
    let chars_before = |byte: usize| line.char_indices().take_while(|(i, _)| *i < byte).count();
    let (from, to) =
        at.map_or((0, 0), |(from, len)| (chars_before(from), chars_before(from.saturating_add(len))));
    // A long line is shown from a little before the wrong word on.
    let skip = if to <= SHOWN { 0 } else { from.saturating_sub(SHOWN / 4) };
    let shown: String =
        line.chars().skip(skip).take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    let lead = if skip > 0 { "..." } else { "" };
    let mut text = format!("{file}: {lead}{shown}\n");
    if at.is_some() {
        let indent = file.chars().count() + 2 + lead.len() + (from - skip);
        let carets = (to - from).clamp(1, SHOWN);
        let _ = writeln!(text, "{:indent$}{:^<carets$}", "", "");
    }
    let reason: String = err.to_string().chars().take(REASON).collect();
    let _ = writeln!(text, "{:?}: {reason}\n", Errno::from_raw(err.errno()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(at: Option<(usize, usize)>) -> Error {
        Error::Invalid { what: "unknown facility".to_owned(), at }
    }

    #[test]
    fn the_carets_stand_under_the_wrong_word() {
        let log = ErrorLog::default();
        log.note(7, "12/ctl", "set é sycall +inherit", &invalid(Some((7, 6))));
        let want = "12/ctl: set é sycall +inherit\n              ^^^^^^\nEINVAL: unknown facility\n\n";
        assert_eq!(log.text(7), want);
        assert_eq!(log.text(8), "", "another user's");
    }

    #[test]
    fn a_reason_without_a_place_has_no_carets() {
        let log = ErrorLog::default();
        log.note(0, "ctl", "set all pid=1\t", &Error::Gone { pid: 1 });
        assert_eq!(log.text(0), "ctl: set all pid=1?\nESRCH: process 1 is gone\n\n");
    }

    #[test]
    fn a_long_line_is_cut_around_the_word() {
        let line = format!("{} wrong {}", "x".repeat(5000), "y".repeat(5000));
        let text = entry("ctl", &line, &invalid(Some((5001, 5))));
        let mut lines = text.lines();
        let (shown, carets) = (lines.next().expect("the line"), lines.next().expect("the carets"));
        let at = shown.find("wrong").expect("the word is shown");
        assert_eq!(carets, format!("{}^^^^^", " ".repeat(at)));
        assert!(shown.len() < 2 * SHOWN);
    }

    #[test]
    fn memory_is_bounded() {
        let log = ErrorLog::default();
        for uid in 0..1000 {
            for _ in 0..20 {
                log.note(uid, "ctl", "x", &invalid(Some((0, usize::MAX))));
            }
        }
        assert_eq!(log.users.lock().failed.len(), USERS);
        assert_eq!(log.text(999).matches("EINVAL").count(), KEPT);
        assert_eq!(log.text(0), "");
    }
}
