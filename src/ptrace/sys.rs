//! The system calls of the ptrace backend: one of the files where unsafe is allowed. Every function is one call with
//! its errno; what they mean is in [`super::stop`] and above.

#![allow(
    unsafe_code,
    reason = "ptrace, wait and process memory have no safe wrapper that knows SEIZE and all signals"
)]

use std::mem::{MaybeUninit, size_of};
use std::ptr;

use libc::{c_long, c_void};
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;

use super::memory::Span;

/// `PTRACE_GETSIGMASK` of the kernel's uapi/linux/ptrace.h.
const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;

/// Wakes a tracer thread that waits. Ignored by default, so a stray one does no harm.
const KICK: Signal = Signal::SIGURG;

/// Calls `ptrace(request, tid, addr, data)`.
///
/// # Safety
/// `addr` and `data` must be what the request expects.
unsafe fn ptrace(request: libc::c_uint, tid: i32, addr: usize, data: usize) -> nix::Result<c_long> {
    // SAFETY: the caller's duty.
    Errno::result(unsafe { libc::ptrace(request, tid, addr as *mut c_void, data as *mut c_void) })
}

/// A request whose `data` is a number, most often a signal.
pub(super) fn request(request: libc::c_uint, tid: i32, data: usize) -> nix::Result<()> {
    debug_assert!(
        [
            libc::PTRACE_SEIZE,
            libc::PTRACE_INTERRUPT,
            libc::PTRACE_LISTEN,
            libc::PTRACE_SYSCALL,
            libc::PTRACE_CONT,
            libc::PTRACE_SINGLESTEP,
            libc::PTRACE_DETACH
        ]
        .contains(&request)
    );
    // SAFETY: these requests take no pointer.
    unsafe { ptrace(request, tid, 0, data) }.map(drop)
}

/// A request that fills a `T`.
///
/// # Safety
/// The request must write at most a `T`, and any bytes must make one.
unsafe fn fetch<T>(request: libc::c_uint, tid: i32, addr: usize) -> nix::Result<T> {
    let mut out = MaybeUninit::<T>::zeroed();
    // SAFETY: `out` has room for what the request writes.
    unsafe { ptrace(request, tid, addr, out.as_mut_ptr() as usize) }?;
    // SAFETY: zeroed before, and any bytes make a `T`.
    Ok(unsafe { out.assume_init() })
}

/// Sets the options of a stopped thread.
pub(super) fn set_options(tid: i32, options: i32) -> nix::Result<()> {
    // SAFETY: the request takes no pointer.
    unsafe { ptrace(libc::PTRACE_SETOPTIONS, tid, 0, options as usize) }.map(drop)
}

/// The system call a stopped thread is at.
pub(super) fn syscall_info(tid: i32) -> nix::Result<libc::ptrace_syscall_info> {
    // SAFETY: the request writes at most as many bytes as `addr` says; the struct is plain integers.
    unsafe { fetch(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of::<libc::ptrace_syscall_info>()) }
}

/// The message of an event stop.
pub(super) fn event_message(tid: i32) -> nix::Result<u64> {
    // SAFETY: the request writes an unsigned long.
    unsafe { fetch(libc::PTRACE_GETEVENTMSG, tid, 0) }
}

/// The signal of a signal-delivery-stop.
pub(super) fn siginfo(tid: i32) -> nix::Result<libc::siginfo_t> {
    // SAFETY: the request writes a siginfo_t, which is plain integers.
    unsafe { fetch(libc::PTRACE_GETSIGINFO, tid, 0) }
}

/// The blocked signals.
pub(super) fn sigmask(tid: i32) -> nix::Result<u64> {
    // SAFETY: `addr` is the size of the mask, which the request writes.
    unsafe { fetch(PTRACE_GETSIGMASK, tid, size_of::<u64>()) }
}

/// The registers.
pub(super) fn registers(tid: i32) -> nix::Result<libc::user_regs_struct> {
    // SAFETY: the request writes a user_regs_struct, which is plain integers.
    unsafe { fetch(libc::PTRACE_GETREGS, tid, 0) }
}

/// Sets the registers.
pub(super) fn set_registers(tid: i32, regs: &libc::user_regs_struct) -> nix::Result<()> {
    // SAFETY: the request reads a user_regs_struct.
    unsafe { ptrace(libc::PTRACE_SETREGS, tid, 0, ptr::from_ref(regs) as usize) }.map(drop)
}

/// The next change of state of a tracee of this very thread, or of the one with this id: thread id and wait status.
///
/// `__WNOTHREAD`: without it another tracer thread's stop can be taken from it.
pub(super) fn wait(tid: Option<i32>, flags: i32) -> nix::Result<Option<(i32, i32)>> {
    let mut status = 0;
    let flags = libc::__WALL | libc::__WNOTHREAD | flags;
    // Not waitpid(3), a cancellation point: the C library would note twice that this thread may not be cancelled.
    // SAFETY: `status` has room for the status, and no usage is asked for.
    let tid = Errno::result(unsafe {
        libc::syscall(libc::SYS_wait4, tid.unwrap_or(-1), &mut status, flags, ptr::null_mut::<libc::rusage>())
    })?;
    Ok((tid != 0).then_some((tid as i32, status)))
}

/// Copies the memory of a process at `addr` into `out`; the count is short where the rest faults.
pub(super) fn read_memory(tid: i32, addr: u64, out: &mut [u8]) -> nix::Result<usize> {
    let local = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    let remote = libc::iovec { iov_base: addr as *mut c_void, iov_len: out.len() };
    // SAFETY: `local` is `out`; `remote` is never touched in this process.
    Errno::result(unsafe { libc::process_vm_readv(tid, &local, 1, &remote, 1, 0) }).map(|n| n as usize)
}

/// Copies these pieces of the memory of a process into `out`, one after the other; the count is short where one faults.
pub(super) fn read_memory_of(tid: i32, spans: &[Span], out: &mut [u8]) -> nix::Result<usize> {
    const { assert!(size_of::<Span>() == size_of::<libc::iovec>()) };
    let local = libc::iovec { iov_base: out.as_mut_ptr().cast(), iov_len: out.len() };
    let remote = spans.as_ptr().cast::<libc::iovec>();
    // SAFETY: `local` is `out`; a span is laid out as an iovec, and what the spans name is never touched in this process.
    Errno::result(unsafe { libc::process_vm_readv(tid, &local, 1, remote, spans.len() as libc::c_ulong, 0) })
        .map(|n| n as usize)
}

/// Copies `bytes` into the memory of a process at `addr`.
pub(super) fn write_memory(tid: i32, addr: u64, bytes: &[u8]) -> nix::Result<usize> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: addr as *mut c_void, iov_len: bytes.len() };
    // SAFETY: `local` is only read; `remote` is never touched in this process.
    Errno::result(unsafe { libc::process_vm_writev(tid, &local, 1, &remote, 1, 0) }).map(|n| n as usize)
}

/// The first bytes of a siginfo beyond signo, errno and code, as they lie in memory from offset 16 on.
pub(super) fn siginfo_payload(info: &libc::siginfo_t) -> [u8; 32] {
    let mut out = [0; 32];
    // SAFETY: siginfo_t has 128 bytes, all of them initialised by the kernel or zeroed by us.
    let bytes =
        unsafe { std::slice::from_raw_parts(ptr::from_ref(info).cast::<u8>(), size_of::<libc::siginfo_t>()) };
    out.copy_from_slice(&bytes[16..48]);
    out
}

/// The id of this thread.
pub(super) fn gettid() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Makes a kick end a wait of this thread instead of restarting it.
pub(super) fn hear_kicks() -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(KICK, &action) }?;
    let mut set = SigSet::empty();
    set.add(KICK);
    set.thread_unblock()
}

/// Kicks a thread of this process out of its wait. One that comes just before the wait is lost: repeat until heard.
pub(super) fn kick(tid: i32) {
    // SAFETY: takes three integers. A thread that is gone cannot be kicked, and need not be.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, KICK as i32) };
}

/// Has the calling thread give way to every other (SCHED_IDLE), or not (SCHED_OTHER); false where the kernel refuses.
pub(super) fn run_idle(idle: bool) -> bool {
    set_policy(if idle { libc::SCHED_IDLE } else { libc::SCHED_OTHER }, 0)
}

/// Has the calling thread go before every other that is not of a real-time class (SCHED_FIFO), or not (SCHED_OTHER); false where
/// the kernel refuses.
pub(super) fn run_first(first: bool) -> bool {
    if first { set_policy(libc::SCHED_FIFO, 1) } else { set_policy(libc::SCHED_OTHER, 0) }
}

fn set_policy(policy: i32, sched_priority: i32) -> bool {
    let param = libc::sched_param { sched_priority };
    // SAFETY: `param` is read only, and 0 names the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &param) == 0 }
}

/// True where nobody has given the calling thread another policy than SCHED_OTHER.
pub(super) fn has_default_policy() -> bool {
    // SAFETY: takes an integer, and 0 names the calling thread.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_OTHER }
}

/// Has the calling thread run on this cpu only; false where it may not run there.
pub(super) fn run_on(cpu: usize) -> bool {
    let mut one = CpuSet::new();
    one.set(cpu).is_ok() && sched_setaffinity(Pid::from_raw(0), &one).is_ok()
}

/// Number and arguments of a call, where `op` says that it is at its entry.
pub(super) fn entry_values(info: &libc::ptrace_syscall_info) -> (u64, [u64; 6]) {
    // SAFETY: the members of the union are plain integers, and all of it is initialised.
    let entry = unsafe { info.u.entry };
    (entry.nr, entry.args)
}

/// Result of a call, where `op` says that it is at its exit: a negative errno or the value.
pub(super) fn exit_value(info: &libc::ptrace_syscall_info) -> i64 {
    // SAFETY: the members of the union are plain integers, and all of it is initialised.
    unsafe { info.u.exit.sval }
}

/// perf_event_attr of perf_event_open(2), as long as PERF_ATTR_SIZE_VER5.
#[repr(C)]
#[derive(Default)]
struct PerfAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clockid: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

/// Bytes of the ring of one perf event: 32 KiB hold 1365 switches.
const PERF_RING: usize = 32 << 10;
const PERF_PAGE: usize = 4096;
/// Where the kernel's and our position stand in the first page (`struct perf_event_mmap_page`).
const PERF_HEAD: usize = 1024;
const PERF_TAIL: usize = 1032;

/// The context switches of one thread, as perf events in a ring that the kernel shares with us.
#[derive(Debug)]
pub(super) struct PerfRing {
    // Keeps the event open; the memory outlives no thread that writes to it, as the kernel holds its own reference.
    _fd: std::os::fd::OwnedFd,
    map: *mut u8,
}

impl PerfRing {
    /// Opens it for a thread; times are CLOCK_REALTIME's.
    ///
    /// # Errors
    /// EACCES and EPERM where perf_event_paranoid or the kernel forbids it; EPERM also where no more memory may be
    /// locked.
    pub(super) fn open(tid: i32) -> nix::Result<PerfRing> {
        use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
        const TYPE_SOFTWARE: u32 = 1;
        const COUNT_DUMMY: u64 = 9;
        const SAMPLE_TIME: u64 = 1 << 2;
        const EXCLUDE_KERNEL: u64 = 1 << 5;
        const SAMPLE_ID_ALL: u64 = 1 << 18;
        const USE_CLOCKID: u64 = 1 << 25;
        const CONTEXT_SWITCH: u64 = 1 << 26;
        const FLAG_CLOEXEC: u64 = 1 << 3;
        let attr = PerfAttr {
            kind: TYPE_SOFTWARE,
            size: size_of::<PerfAttr>() as u32,
            config: COUNT_DUMMY,
            sample_type: SAMPLE_TIME,
            flags: EXCLUDE_KERNEL | SAMPLE_ID_ALL | USE_CLOCKID | CONTEXT_SWITCH,
            clockid: libc::CLOCK_REALTIME,
            ..PerfAttr::default()
        };
        // SAFETY: the kernel reads `size` bytes of `attr`; the others are integers.
        let fd = Errno::result(unsafe {
            libc::syscall(libc::SYS_perf_event_open, ptr::from_ref(&attr), tid, -1, -1, FLAG_CLOEXEC)
        })?;
        // SAFETY: the kernel has just made this descriptor for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let len = PERF_PAGE + PERF_RING;
        // SAFETY: a new mapping, wherever the kernel puts it.
        let map = unsafe { libc::mmap(ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        match map == libc::MAP_FAILED {
            true => Err(Errno::last()),
            false => Ok(PerfRing { _fd: fd, map: map.cast() }),
        }
    }

    /// Takes out all that is there.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        use std::sync::atomic::{AtomicU64, Ordering};
        // SAFETY: the first page is mapped as long as `self` lives; the kernel writes the head, we write the tail.
        let (head, tail) = unsafe {
            (&*self.map.add(PERF_HEAD).cast::<AtomicU64>(), &*self.map.add(PERF_TAIL).cast::<AtomicU64>())
        };
        let (from, to) = (tail.load(Ordering::Relaxed), head.load(Ordering::Acquire));
        let at = from as usize % PERF_RING;
        let len = ((to - from) as usize).min(PERF_RING);
        let first = len.min(PERF_RING - at);
        // SAFETY: both pieces lie in the ring, and between tail and head the kernel writes nothing.
        unsafe {
            let ring = self.map.add(PERF_PAGE);
            out.extend_from_slice(std::slice::from_raw_parts(ring.add(at), first));
            out.extend_from_slice(std::slice::from_raw_parts(ring, len - first));
        }
        tail.store(to, Ordering::Release);
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: our own mapping, used by nobody after this.
        unsafe { libc::munmap(self.map.cast(), PERF_PAGE + PERF_RING) };
    }
}
