//! The life of a mount: from mount(2) over the threads that serve it to its orderly end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, Session, SessionACL};
use ktrace::backend::Backend;
use ktrace::control::{self, Ktrace};
use ktrace::ebpf::Ebpf;
use ktrace::proc::ProcTable;
use ktrace::ptrace::Ptrace;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::args::Args;
use crate::channel::{self, Device, Pair};
use crate::daemon;
use crate::files::Files;
use crate::fs::Fs;
use crate::fuse::Fuse;
use crate::mount::{self, Mount};
use crate::options::Options;
use crate::parked::Streams;
use crate::pump::{self, Bell};
use crate::work::Work;

/// How long detaching may take at the end.
const DETACH_MAX: Duration = Duration::from_secs(1);
/// How long readers may take at the end to read what is there and close.
const READERS_MAX: Duration = Duration::from_millis(800);
/// Between two looks whether there is still a reason to stay.
const STAY: Duration = Duration::from_millis(100);
/// Looks that find no reason: whose a newborn is may be known a moment after its parent's death.
const LOOKS: u32 = 5;

/// Mounts, serves until a signal or an unmount, and leaves everything as it was found.
///
/// # Errors
/// What went wrong, in words.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let failed = |what: &'static str| move |err: io::Error| format!("{what}: {err}");
    let at = mount::resolve(&args.mountpoint)?;
    let signals = signals().map_err(|errno| format!("signals: {errno}"))?;
    raise_descriptors();
    let pair = Pair::new().map_err(failed("socketpair"))?;
    let bell = Arc::new(Bell::new().map_err(failed("eventfd"))?);
    let ended = Ended::new().map_err(failed("eventfd"))?;
    // Before the first thread: fusermount3 is given a descriptor that no other child may get.
    let (mount, fuse) = Mount::new(&args.source, &at, &args.options)?;
    log::info!("mounted on {}", at.display());

    let mut no_ebpf = None;
    let ktrace = Ktrace::new(library_options(&args.options, &at), |procs| {
        backends(&args.options, procs, &mut no_ebpf)
    });
    let device = Arc::new(Device::new(fuse));
    let streams = Streams::new(Arc::clone(&device), Arc::clone(ktrace.procs()), Arc::clone(&bell));
    let fs = Arc::new(Fs::new(Arc::clone(&ktrace), no_ebpf));
    let work = Arc::new(Work::new("ctl"));
    let files = Files::new(Arc::clone(&device), Arc::clone(&fs), Arc::clone(&streams), Arc::clone(&work));
    let fuse = Fuse::new(fs, Arc::clone(&streams), work, pair.write_max);

    let threads = Threads { device, pair, streams: &streams, bell: &bell, ktrace: &ktrace, ended: &ended };
    let served = start(threads, files, fuse);
    let outcome = served.and_then(|()| {
        if args.ready {
            daemon::ready().map_err(failed("/dev/null"))?;
        }
        wait(&signals, &mount, &ended).map_err(|errno| format!("poll: {errno}"))
    });

    ktrace.shutdown(Instant::now() + DETACH_MAX);
    streams.close();
    mount.unmount();
    drain(&streams, &ended);
    stay(&ktrace);
    outcome
}

/// Stays, with nothing mounted, for those who would not outlive us; other signals than SIGKILL no longer count.
fn stay(ktrace: &Ktrace) {
    let Some(dependents) = ktrace.dependents() else { return };
    if dependents > 0 {
        log::warn!(
            "{dependents} processes have a filter of calls that needs a tracer: staying until they have ended"
        );
    }
    // Nor is our directory a reason why something cannot be unmounted.
    if let Err(err) = std::env::set_current_dir("/") {
        log::warn!("/: {err}");
    }
    let mut none = 0;
    while none < LOOKS {
        none = if ktrace.dependents() == Some(0) { none + 1 } else { 0 };
        thread::sleep(STAY);
    }
}

/// The backends there are here, the best first. Without a name (`backend=auto`) a set takes the first that can do what it
/// asks for. Says why there is no eBPF.
fn backends(
    options: &Options,
    procs: &Arc<ProcTable>,
    no_ebpf: &mut Option<String>,
) -> Vec<Arc<dyn Backend>> {
    let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
    if options.backend.as_deref() != Some(ktrace::ptrace::NAME) {
        match Ebpf::new(Arc::clone(procs)) {
            Ok(ebpf) => backends.push(ebpf),
            Err(why) => {
                log::warn!("no eBPF here, ptrace instead: {why}");
                *no_ebpf = Some(why);
            }
        }
    }
    backends.push(Ptrace::new(Arc::clone(procs)));
    backends
}

fn library_options(options: &Options, at: &Path) -> control::Options {
    control::Options {
        size: options.size,
        mem: options.mem,
        linger: options.linger,
        policy: options.policy,
        backend: options.backend.clone(),
        ignore_yama: options.ignore_yama,
        mountpoint: Some(at.to_owned()),
    }
}

/// What the threads share.
struct Threads<'a> {
    device: Arc<Device>,
    pair: Pair,
    streams: &'a Arc<Streams>,
    bell: &'a Arc<Bell>,
    ktrace: &'a Arc<Ktrace>,
    ended: &'a Ended,
}

/// Starts all threads; returns when the kernel and fuser have agreed.
fn start(threads: Threads<'_>, files: Files, fuse: Fuse) -> Result<(), String> {
    let Threads { device, pair, streams, bell, ktrace, ended } = threads;
    let ours = pair.ours.try_clone().map_err(|err| format!("socketpair: {err}"))?;

    let (to, from, end) = (Arc::clone(streams), Arc::clone(&device), ended.teller());
    spawn("channel", move || {
        if let Err(err) = channel::serve(&from, &ours, &to, &files) {
            log::error!("/dev/fuse: {err}");
        }
        end.tell();
    })?;
    let ours = pair.ours;
    spawn("replies", move || channel::copy_replies(&ours, &device))?;
    let (bell, to, sweeps) = (Arc::clone(bell), Arc::clone(streams), Arc::clone(ktrace));
    let stop = AtomicBool::new(false);
    spawn("pump", move || pump::run(&bell, &to, || sweeps.sweep(), &stop))?;

    let session = Session::from_fd(fuse, pair.fusers, SessionACL::All, Config::default())
        .map_err(|err| format!("the kernel's first request: {err}"))?;
    let end = ended.teller();
    spawn("fuser", move || {
        if let Err(err) = session.run() {
            log::error!("fuser: {err}");
        }
        end.tell();
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), String> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map(drop)
        .map_err(|err| format!("thread {name}: {err}"))
}

/// Set when a thread that serves the mount has ended: the mount is gone, or useless.
struct Ended {
    event: Arc<EventFd>,
    told: Arc<AtomicBool>,
}

impl Ended {
    fn new() -> io::Result<Ended> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Ended { event: Arc::new(event), told: Arc::default() })
    }

    fn teller(&self) -> Ended {
        Ended { event: Arc::clone(&self.event), told: Arc::clone(&self.told) }
    }

    fn tell(&self) {
        self.told.store(true, Ordering::SeqCst);
        // It can only fail when it has been told 2^64 times.
        let _ = self.event.write(1);
    }

    fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }
}

/// Signals that end the daemon come as reads of a descriptor: blocked here, before any thread that would get them.
fn signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Every waiting open and every traced process takes a descriptor or two.
fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // A lower limit only means that fewer can be traced at a time.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Returns when there is a reason to end.
fn wait(signals: &SignalFd, mount: &Mount, ended: &Ended) -> nix::Result<()> {
    // The kernel marks this file when the mounts of our namespace change: `umount -l` leaves no other trace while
    // somebody has a file open.
    let mounts = File::open("/proc/self/mountinfo").map(OwnedFd::from).ok();
    loop {
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.event.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(mounts.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLPRI)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        if let Ok(Some(signal)) = signals.read_signal() {
            log::info!("signal {}: ending", signal.ssi_signo);
            return Ok(());
        }
        if ended.is_told() || !mount.is_there() {
            log::info!("unmounted: ending");
            return Ok(());
        }
    }
}

/// Gives readers a moment to read what is left and to close.
fn drain(streams: &Streams, ended: &Ended) {
    let by = Instant::now() + READERS_MAX;
    while streams.count() > 0 && !ended.is_told() {
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        let slice = left.min(Duration::from_millis(20)).as_millis() as u16 + 1;
        let mut fds = [PollFd::new(ended.event.as_fd(), PollFlags::POLLIN)];
        // Whatever it says is looked at by the loop's condition.
        let _ = poll(&mut fds, PollTimeout::from(slice));
    }
}
