//! Linux's errno names and messages, and the kernel's restart codes, which are none (errno(3)).

use std::borrow::Cow;
use std::sync::OnceLock;

use nix::errno::Errno;

/// True for the results -512 to -516 by which the kernel tells itself to run a call again (`include/linux/errno.h`);
/// no program ever sees one. Among them is `ENOIOCTLCMD`, which reaches nobody either.
pub fn is_restart(error: i32) -> bool {
    matches!(error, -516..=-512)
}

/// The name of a positive errno: `ENOENT`.
pub fn name(errno: i32) -> Option<String> {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => None,
        // EWOULDBLOCK is the same number, and so are EDEADLOCK and ENOTSUP: nix shows the first of each.
        known => Some(format!("{known:?}")),
    }
}

/// One more than the last errno there is.
const COUNT: usize = libc::EHWPOISON as usize + 1;
/// The messages of those that have been asked for.
static MESSAGES: [OnceLock<String>; COUNT] = [const { OnceLock::new() }; COUNT];

/// The message of a positive errno, as strerror(3) has it.
pub fn message(errno: i32) -> Cow<'static, str> {
    match usize::try_from(errno).ok().and_then(|n| MESSAGES.get(n)) {
        Some(kept) => kept.get_or_init(|| made(errno)).as_str().into(),
        None => made(errno).into(),
    }
}

fn made(errno: i32) -> String {
    if Errno::from_raw(errno) == Errno::UnknownErrno {
        return format!("Unknown error: {errno}");
    }
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let number = format!(" (os error {errno})");
    text.strip_suffix(&number).map_or(text.clone(), str::to_owned)
}

/// The message of an I/O error, without Rust's "(os error N)".
pub fn words(e: &std::io::Error) -> String {
    e.raw_os_error().map_or_else(|| e.to_string(), |errno| message(errno).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names_and_messages() {
        assert_eq!(name(2).as_deref(), Some("ENOENT"));
        assert_eq!(name(11).as_deref(), Some("EAGAIN"));
        assert_eq!(name(95).as_deref(), Some("EOPNOTSUPP"));
        assert_eq!(message(2), "No such file or directory");
        assert_eq!(message(11), "Resource temporarily unavailable");
        assert_eq!(message(4000), "Unknown error: 4000");
        assert_eq!((name(0), name(4000), name(-2)), (None, None, None));
    }

    #[test]
    fn restarts_are_no_errors() {
        assert!((-516..=-512).all(is_restart));
        assert!([-511, -517, 0, 512].into_iter().all(|e| !is_restart(e)));
    }
}
