//! Loads the programs, and attaches each only while somebody wants what it sees: an attached program is paid for by every
//! process of the machine.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::trace_point::TracePointLinkId;
use aya::programs::{BtfTracePoint, Program, ProgramError, TracePoint};
use aya::util::KernelVersion;
use aya::{Btf, Ebpf, EbpfLoader, VerifierLogLevel};
use nix::sys::signal::{Signal, raise};

use super::kernel::SLOTS;
use crate::facility::Facs;

/// The compiled `bpf/ktrace.bpf.c`.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("bpf/ktrace.bpf.o"));

/// An ELF file is read in words.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);

/// Inode number of the first pid namespace (`PROC_PID_INIT_INO` of the kernel's include/linux/proc_ns.h): the programs
/// see its numbers.
const INIT_PID_NS: u64 = 0xEFFF_FFFC;

/// The tracepoint of each program, which has its name, and which facilities need it; the empty set: every one.
const PROGRAMS: [(&str, &str, Facs); 8] = [
    // Births before all others: what they let in must find its end.
    (LIVES[0], "sched_process_exit", Facs::empty()),
    (LIVES[1], "sched_process_exec", Facs::empty()),
    (LIVES[2], "sched_process_fork", Facs::empty()),
    ("sys_enter", "sys_enter", CALLS),
    ("sys_exit", "sys_exit", CALLS),
    ("signal_generate", "signal_generate", Facs::PSIG),
    ("signal_deliver", "signal_deliver", Facs::PSIG),
    ("sched_switch", "sched_switch", Facs::CSW),
];
/// Those of deaths, execs and births.
const LIVES: [&str; 3] = ["process_exit", "process_exec", "process_fork"];
/// The program of switches that takes what the tracepoint says of the state, and the one that does without.
const SWITCHES: [&str; 2] = ["sched_switch", "sched_switch_3"];
pub(super) const CALLS: Facs =
    Facs::SYSCALL.union(Facs::SYSRET).union(Facs::NAMEI).union(Facs::GENIO).union(Facs::EMUL);

/// How the programs of calls are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// From the tracepoint.
    Tracepoint,
    /// Behind perf events of raw_syscalls, which keep the cpu while a program runs, and make a record of their own first.
    Perf,
}

impl Calls {
    /// Before 7.0 the kernel itself keeps the cpu at a tracepoint. Since then a program may be preempted, and meanwhile it is
    /// left out for whatever else calls on that cpu (`bpf_prog_get_recursion_context` of the kernel's
    /// include/linux/bpf.h): too much would be missed. Nothing but the version tells of it.
    pub(super) fn of_this_kernel() -> Calls {
        match KernelVersion::current() {
            Ok(version) if version < KernelVersion::new(7, 0, 0) => Calls::Tracepoint,
            _ => Calls::Perf,
        }
    }

    /// The program that does the work of this one.
    fn program(self, name: &str) -> Option<&'static str> {
        match (self, name) {
            (Calls::Perf, "sys_enter") => Some("sys_enter_perf"),
            (Calls::Perf, "sys_exit") => Some("sys_exit_perf"),
            _ => None,
        }
    }
}

/// Where a program is attached.
enum Link {
    Tracepoint(BtfTracePointLinkId),
    Perf(TracePointLinkId),
}

/// How much there can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Processes that can be traced at once.
    pub(super) procs: u32,
    /// Trace files.
    pub(super) files: usize,
    /// Different choices of calls.
    pub(super) filters: usize,
    /// Threads of which something is remembered in a call.
    threads: u32,
    /// Whether bpf_loop() is used where it is there.
    loops: u32,
    /// Whether what the tracepoint says of the state of a thread is taken where it does.
    states: bool,
    /// Events until the thread that reads them breaks down.
    pub(super) events: u64,
    /// Which of [`LIVES`] see nothing, a bit each, as if each run of theirs had been left out.
    blind: u32,
    /// The daemon stops, as by SIGSTOP, where it has looked at a child that it is about to adopt.
    halts: bool,
}

/// Runs of programs that the kernel has left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Misses {
    /// Of all programs.
    pub(super) all: u64,
    /// Of those of births, execs and deaths.
    pub(super) lives: u64,
}

impl Limits {
    /// Those of `bpf/maps.h`. For tests, in a build that is not for use, less: `KTRACE_TEST_EBPF=procs=16`.
    pub(super) fn get() -> Limits {
        let slots = SLOTS as usize;
        let mut limits = Limits {
            procs: 32768,
            files: slots,
            // The first slot is for none.
            filters: slots - 1,
            threads: 16384,
            loops: 1,
            states: true,
            events: u64::MAX,
            blind: 0,
            halts: false,
        };
        if cfg!(debug_assertions) {
            let said = std::env::var("KTRACE_TEST_EBPF").unwrap_or_default();
            for (word, number) in said.split(',').filter_map(|word| word.split_once('=')) {
                match (word, number.parse::<u32>()) {
                    ("procs", Ok(procs)) => limits.procs = procs,
                    ("files", Ok(files)) => limits.files = slots.min(files as usize),
                    ("filters", Ok(filters)) => limits.filters = (slots - 1).min(filters as usize),
                    ("threads", Ok(threads)) => limits.threads = threads,
                    ("loops", Ok(loops)) => limits.loops = loops,
                    ("states", Ok(states)) => limits.states = states != 0,
                    ("events", Ok(events)) => limits.events = events.into(),
                    ("blind", Ok(blind)) => limits.blind = blind,
                    ("halts", Ok(halts)) => limits.halts = halts != 0,
                    _ => log::error!("KTRACE_TEST_EBPF: {word} is not understood"),
                }
            }
        }
        limits
    }

    /// Between a look and what follows from it: whatever may happen there, a test can have happen.
    pub(super) fn halt(&self) {
        if self.halts {
            // Without it that test fails.
            let _ = raise(Signal::SIGSTOP);
        }
    }
}

/// The loaded programs.
pub(super) struct Programs {
    ebpf: Ebpf,
    calls: Calls,
    /// Of [`SWITCHES`].
    switches: &'static str,
    links: [Option<Link>; PROGRAMS.len()],
    blind: u32,
    /// What those would have missed that are blind.
    missed: u64,
}

impl Programs {
    /// Loads them all, so that what does not work is known before anybody relies on it.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn load(calls: Calls, limits: &Limits) -> Result<Programs, String> {
        match std::fs::metadata("/proc/self/ns/pid") {
            Ok(ns) if ns.ino() == INIT_PID_NS => {}
            Ok(_) => return Err("the daemon is not in the first pid namespace".into()),
            Err(error) => return Err(format!("/proc/self/ns/pid: {error}")),
        }
        let btf = Btf::from_sys_fs().map_err(|error| format!("no BTF of the kernel: {}", chain(&error)))?;
        let mut ebpf = EbpfLoader::new()
            .btf(Some(&btf))
            .override_global("procs_max", &limits.procs, true)
            .override_global("loops", &limits.loops, true)
            .map_max_entries("threads", limits.threads)
            .verifier_log_level(VerifierLogLevel::STATS)
            .load(&OBJECT.0)
            .map_err(|error| chain(&error))?;
        for (name, tracepoint, _) in PROGRAMS.into_iter().filter(|(name, ..)| *name != SWITCHES[0]) {
            let loaded = match calls.program(name) {
                Some(name) => program::<TracePoint>(&mut ebpf, name)?.load(),
                None => program::<BtfTracePoint>(&mut ebpf, name)?.load(tracepoint, &btf),
            };
            loaded.map_err(|error| refused(tracepoint, &error))?;
        }
        let switches = load_switches(&mut ebpf, &btf, limits.states)?;
        Ok(Programs { ebpf, calls, switches, links: Default::default(), blind: limits.blind, missed: 0 })
    }

    /// The maps.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// How often the kernel has not run one of them, because it was in the midst of a run on the same cpu: that can be where the
    /// kernel is preemptible.
    pub(super) fn misses(&mut self) -> Misses {
        let of = |program: &Program| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
        };
        self.missed += u64::from(self.blind != 0);
        let mut sum = Misses { all: 0, lives: self.missed };
        for (name, program) in self.ebpf.programs() {
            let misses = of(program).map_or(0, |fdinfo| misses(&fdinfo));
            sum.all += misses;
            sum.lives += if LIVES.contains(&name) { misses } else { 0 };
        }
        sum
    }

    /// Attaches what these facilities need, `None` for nothing at all, and detaches the rest.
    ///
    /// # Errors
    /// Why something cannot be attached, in words.
    pub(super) fn attach(&mut self, facs: Option<Facs>) -> Result<(), String> {
        for ((name, tracepoint, needs), link) in PROGRAMS.iter().zip(&mut self.links) {
            let wanted = facs.is_some_and(|facs| needs.is_empty() || facs.intersects(*needs))
                && !is_blind(self.blind, name);
            if wanted == link.is_some() {
                continue;
            }
            let failed = |error: ProgramError| format!("{tracepoint}: {}", chain(&error));
            let name = match *name {
                name if name == SWITCHES[0] => self.switches,
                name => self.calls.program(name).unwrap_or(name),
            };
            let ebpf = &mut self.ebpf;
            match link.take() {
                None if self.calls.program(tracepoint).is_some() => {
                    let attached = program::<TracePoint>(ebpf, name)?.attach("raw_syscalls", tracepoint);
                    *link = Some(Link::Perf(attached.map_err(failed)?));
                }
                None => {
                    let attached = program::<BtfTracePoint>(ebpf, name)?.attach();
                    *link = Some(Link::Tracepoint(attached.map_err(failed)?));
                }
                Some(Link::Perf(link)) => program::<TracePoint>(ebpf, name)?.detach(link).map_err(failed)?,
                Some(Link::Tracepoint(link)) => {
                    program::<BtfTracePoint>(ebpf, name)?.detach(link).map_err(failed)?
                }
            }
        }
        Ok(())
    }
}

/// Loads that of [`SWITCHES`] which the kernel takes, the first only where it may.
///
/// # Errors
/// Why it takes neither.
fn load_switches(ebpf: &mut Ebpf, btf: &Btf, states: bool) -> Result<&'static str, String> {
    let mut load = |name| {
        let loaded = program::<BtfTracePoint>(ebpf, name)?.load("sched_switch", btf);
        loaded.map_err(|error| refused("sched_switch", &error))
    };
    let [with, without] = SWITCHES;
    // Whether the tracepoint has that argument, the verifier knows.
    if states {
        match load(with) {
            Ok(()) => return Ok(with),
            Err(why) => log::info!("{with}: {why}"),
        }
    }
    load(without).map(|()| without)
}

/// Why a program was not loaded, in words. What the verifier of an old kernel says of it would tell a user nothing: that lacks atomic
/// operations that fetch (5.12), and `__state` of a thread (5.14). No version decides anything here.
fn refused(tracepoint: &str, error: &ProgramError) -> String {
    let is_old = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 14, 0));
    let why = if is_old { "the programs need more than Linux before 5.14 has: " } else { "" };
    format!("{why}{tracepoint}: {}", chain(error))
}

fn is_blind(blind: u32, name: &str) -> bool {
    LIVES.iter().position(|one| *one == name).is_some_and(|at| blind >> at & 1 != 0)
}

/// The `recursion_misses` of a program, by what /proc/pid/fdinfo says of its descriptor; kernels before 5.12 say nothing.
fn misses(fdinfo: &str) -> u64 {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix("recursion_misses:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
    program.try_into().map_err(|error| format!("{name}: {error}"))
}

/// An error with its causes; of the verifier's log the last lines.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    // The verifier's statistics come last.
    match &lines[..] {
        [first, .., a, b, c, d, e, f, g] => format!("{first} ... {a}; {b}; {c}; {d}; {e}; {f}; {g}"),
        lines => lines.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ebpf::tests::where_there_is;

    fn load(calls: Calls, limits: &Limits) -> Option<Programs> {
        where_there_is(Programs::load(calls, limits).map_err(|why| format!("{calls:?}: {why}")))
    }

    #[test]
    fn calls_are_seen_either_way() {
        for calls in [Calls::Tracepoint, Calls::Perf] {
            let Some(mut programs) = load(calls, &Limits::get()) else { return };
            for facs in [Some(CALLS), None, Some(CALLS), None] {
                programs.attach(facs).unwrap();
                assert_eq!(programs.links.iter().flatten().count(), if facs.is_some() { 5 } else { 0 });
            }
        }
    }

    #[test]
    fn the_state_that_the_tracepoint_gives_is_taken_where_it_does() {
        let gives = KernelVersion::current().unwrap() >= KernelVersion::new(5, 18, 0);
        for states in [true, false] {
            let Some(mut programs) = load(Calls::of_this_kernel(), &Limits { states, ..Limits::get() })
            else {
                return;
            };
            assert_eq!(programs.switches, SWITCHES[usize::from(!(states && gives))]);
            programs.attach(Some(Facs::CSW)).unwrap();
            assert_eq!(programs.links.iter().flatten().count(), 4);
        }
    }

    #[test]
    fn misses_are_found_where_the_kernel_tells_them() {
        assert_eq!(misses("prog_type:\t26\nrun_cnt:\t7\nrecursion_misses:\t12\nverified_insns:\t9\n"), 12);
        assert_eq!(misses("prog_type:\t26\nrun_cnt:\t7\n"), 0);
    }
}
