//! The signals of a tool that waits, taken as descriptors so that one poll(2) sees everything.

use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM, blocked and to be read here until this is dropped.
#[derive(Debug)]
pub(super) struct Signals {
    fd: SignalFd,
    before: SigSet,
}

impl Signals {
    /// From now on these signals wait to be read. Made after the command was started, whose signals are not ours to
    /// change.
    pub(super) fn take() -> nix::Result<Signals> {
        let ours = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM]);
        let before = ours.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&ours, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Signals { fd, before })
    }

    /// The mask as it was.
    pub(super) fn before(&self) -> SigSet {
        self.before
    }

    /// A signal that has come.
    pub(super) fn next(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok()??;
        Signal::try_from(info.ssi_signo as i32).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Fails for no mask that the kernel itself gave.
        let _ = self.before.thread_set_mask();
    }
}

/// Ends this process as the command ended: with its status, or of its signal, without a second core file.
pub(super) fn end_as(status: ExitStatus) -> ! {
    use std::os::unix::process::ExitStatusExt;
    if let Some(number) = status.signal() {
        if let Ok(signal) = Signal::try_from(number) {
            end_of(signal);
        }
        std::process::exit(128 + number);
    }
    std::process::exit(status.code().unwrap_or(1));
}

/// Ends this process of a signal.
pub(super) fn end_of(signal: Signal) -> ! {
    // Where one of these fails, the exit below still says which signal it was.
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let _ = crate::sys::default_action(signal);
    let _: Result<(), Errno> = SigSet::from(signal).thread_unblock().and_then(|()| raise(signal));
    std::process::exit(128 + signal as i32);
}
