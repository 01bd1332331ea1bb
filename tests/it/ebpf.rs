//! The eBPF backend: the same records as with ptrace, and a loss that is told to the record.

use ktrace::record::Body;

use crate::support::mount::Mount;
use crate::support::stream::Rec;
use crate::support::tracee::{self, Tracee};
use crate::support::{Running, need};

fn mount() -> Option<Mount> {
    let mount = Mount::with(&["-o", "backend=auto"]);
    mount.read("stat").contains("backend ebpf").then_some(mount)
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
    // Whether a thread has to wait for another is chance.
    let by_chance = |name: Option<&str>| name == Some("futex");
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
    need!("fuse", "ptrace");
    let Some(mount) = mount() else { return crate::support::say("SKIP: no eBPF here") };
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

#[test]
fn what_the_kernel_could_not_hold_is_counted_to_the_record() {
    need!("fuse");
    let Some(mount) = mount() else { return crate::support::say("SKIP: no eBPF here") };
    const CALLS: u64 = 400_000;
    let program = tracee::program("flood");
    assert!(program.exists());
    let line = "set syscall policy=drop size=64K calls=getppid backend=ebpf";
    let recs = traced(&mount, "flood", &[&CALLS.to_string()], line);
    let seen = recs.iter().filter(|rec| rec.call() == Some("getppid")).count() as u64;
    let told: u64 = recs.iter().filter_map(lost).sum();
    assert_eq!(seen + told, CALLS, "{seen} seen, {told} told");
    assert!(told > 0, "nothing was lost: the flood was too small to prove anything");
}

#[test]
fn a_small_ring_grows_and_what_it_lost_before_is_counted() {
    need!("fuse");
    let mount = Mount::with(&["-o", "backend=auto,mem=40M"]);
    if !mount.read("stat").contains("backend ebpf") {
        return crate::support::say("SKIP: no eBPF here");
    }
    // With it more than a quarter of the memory is used: rings begin small.
    let asleep = Running::spawn(std::process::Command::new("sleep").arg("100"));
    mount.set(asleep.pid(), "set syscall size=16M backend=ebpf");
    let memory = || -> usize {
        let stat = mount.read("stat");
        stat.lines().find_map(|line| line.strip_prefix("memory ")).unwrap().parse().unwrap()
    };
    const CALLS: u64 = 300_000;
    let mut tracee = Tracee::start("flood", &[&CALLS.to_string()]);
    let mut trace = mount.trace(tracee.pid());
    let before = memory();
    mount.set(tracee.pid(), "set syscall policy=drop size=4M calls=getppid backend=ebpf");
    let small = memory() - before;
    assert!(small < 512 << 10, "{small} bytes from the start");
    tracee.go();
    let recs = trace.rest();
    let seen = recs.iter().filter(|rec| rec.call() == Some("getppid")).count() as u64;
    let told: u64 = recs.iter().filter_map(lost).sum();
    assert_eq!(seen + told, CALLS, "{seen} seen, {told} told");
    assert!(seen > CALLS / 10, "{seen} seen: the ring has stayed small");
}

#[test]
fn a_child_is_traced_although_its_birth_had_no_room() {
    need!("fuse");
    let Some(mount) = mount() else { return crate::support::say("SKIP: no eBPF here") };
    const CALLS: u64 = 20_000;
    const CHILDREN: u64 = 20;
    let line = "set syscall +inherit policy=drop size=16K calls=getppid backend=ebpf";
    let recs = traced(&mount, "flood", &[&CALLS.to_string(), &CHILDREN.to_string()], line);
    let calls: Vec<_> = recs.iter().filter(|rec| rec.call() == Some("getppid")).collect();
    let told: u64 = recs.iter().filter_map(lost).sum();
    let seen = calls.len() as u64;
    assert_eq!(seen + told, CALLS * (CHILDREN + 1), "{seen} seen, {told} told");
    assert!(told > 0, "nothing was lost: the flood was too small to prove anything");
}

/// How many records the stream says are lost at this place.
fn lost(rec: &Rec) -> Option<u64> {
    let Body::User { data, .. } = rec.body() else { return None };
    let text = std::str::from_utf8(data).ok().filter(|_| rec.is_of_stream())?;
    text.strip_prefix("lost ")?.split(' ').next()?.parse().ok()
}
