//! What is to be said of the eBPF backend alone: the same records as with ptrace, a loss that is told to the record, and
//! processes that others trace.

mod ending;
mod fault;
mod loss;
mod missed;
mod privilege;
mod rings;
mod share;
mod switched;
mod watched;
mod whole;

use ktrace::record::Body;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;
use crate::support::{need, wait_for};

/// A mount that has both backends.
fn mount() -> Mount {
    Mount::with(&["-o", "backend=auto"])
}

fn traced(mount: &Mount, program: &str, args: &[&str], line: &str) -> Vec<Rec> {
    let mut tracee = Tracee::start(program, args);
    let mut trace = mount.trace(tracee.pid());
    mount.set(tracee.pid(), line);
    tracee.go();
    trace.rest()
}

/// What a program did after its start, thread by thread in the order of their birth, without what differs between runs.
fn story(recs: &[Rec]) -> Vec<Vec<String>> {
    let mut tids: Vec<i32> = recs.iter().map(Rec::tid).collect();
    tids.sort_unstable();
    tids.dedup();
    let of = |tid: &i32| recs.iter().filter(|rec| rec.tid() == *tid).filter_map(word).collect();
    tids.iter().map(of).map(after_start).collect()
}

fn after_start(story: Vec<String>) -> Vec<String> {
    // It waited for its start in a read: ptrace shows its beginning, who came into its midst without a stop does not.
    let skip = usize::from(story.iter().take(2).any(|word| word == "CALL read"));
    let begun = story.iter().position(|word| word.starts_with("RET read")).filter(|&at| at <= 3 + skip);
    story[begun.map_or(0, |at| at + 1)..].to_vec()
}

fn word(rec: &Rec) -> Option<String> {
    // Whether a thread has to wait for another is chance, and whether it has begun before we came.
    let by_chance =
        |name: Option<&str>| matches!(name, Some("futex" | "rseq" | "set_robust_list" | "rt_sigprocmask"));
    if rec.is_of_stream() || by_chance(rec.call()) || by_chance(rec.result().map(|(name, _)| name)) {
        return None;
    }
    Some(match rec.body() {
        Body::Syscall { .. } => format!("CALL {}", rec.call().unwrap_or("?")),
        Body::Sysret { error, .. } => format!("RET {} {error}", rec.result().map_or("?", |(name, _)| name)),
        Body::Namei(path) => format!("NAMI {}", String::from_utf8_lossy(path)),
        Body::Genio { fd, write, data } => format!("GIO {fd} {write} {:?}", data),
        Body::Psig(psig) => format!("PSIG {} {} {:?}", psig.signo, psig.action > 1, psig.mask),
        Body::ExecArg(arg) => format!("ARG {}", String::from_utf8_lossy(arg)),
        Body::Emul(name) => format!("EMUL {}", String::from_utf8_lossy(name)),
        _ => return None,
    })
}

#[test]
fn the_two_backends_tell_the_same_of_the_same_program() {
    need!("fuse", "ebpf");
    let mount = mount();
    // Not `exec`: of a thread that another one's exec ends in its call, ptrace has no return, and the kernel has. Not
    // `forks`: a child that ptrace is kept away from (CLONE_UNTRACED) is traced here.
    for (program, args) in
        [("calls", &[][..]), ("signals", &[]), ("threads", &[]), ("moves", &["paths"]), ("moves", &["data"])]
    {
        let [by_ptrace, by_ebpf] = ["ptrace", "ebpf"].map(|backend| {
            let line = format!("set default,execarg +inherit policy=drop backend={backend}");
            let recs = traced(&mount, program, args, &line);
            let told: u64 = recs.iter().filter_map(lost).sum();
            assert_eq!(told, 0, "{program}, {backend}: lost");
            story(&recs)
        });
        assert!(!by_ebpf.is_empty(), "{program}");
        assert_eq!(by_ptrace.len(), by_ebpf.len(), "{program}: threads");
        for (ptrace, ebpf) in by_ptrace.iter().zip(&by_ebpf) {
            assert_eq!(ptrace, ebpf, "{program}");
        }
    }
}

/// Waits until no thread of the daemon goes on, after a SIGSTOP.
fn wait_until_it_stands(daemon: i32) {
    wait_for("the daemon to stand still", || {
        let stands = |tid: &i32| ktrace::proc::Stat::of(*tid).is_ok_and(|stat| stat.state == b'T');
        ktrace::proc::threads(daemon).is_ok_and(|tids| tids.iter().all(stands))
    });
}

/// How many records the stream says are lost at this place.
fn lost(rec: &Rec) -> Option<u64> {
    let Body::User { data, .. } = rec.body() else { return None };
    let text = std::str::from_utf8(data).ok().filter(|_| rec.is_of_stream())?;
    text.strip_prefix("lost ")?.split(' ').next()?.parse().ok()
}
