//! Every call that takes a path or moves user data shows it: NAMEI and GENIO.

use ktrace::record::Body;

use crate::support::mount::Mount;
use crate::support::need;
use crate::support::stream::Rec;
use crate::support::tracee::Tracee;

fn moves(program: &str, args: &[&str], facs: &str) -> Vec<Rec> {
    let mount = Mount::new();
    let mut tracee = Tracee::start(program, args);
    mount.set(tracee.pid(), &format!("set {facs}"));
    let mut trace = mount.trace(tracee.pid());
    tracee.go();
    trace.rest()
}

#[test]
fn r04_every_path_of_a_call_makes_a_namei_as_it_was_given() {
    need!("fuse", "ptrace");
    let recs = moves("moves", &["paths"], "namei");
    let mut paths: Vec<String> = recs
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::Namei(path) => Some(String::from_utf8_lossy(path).into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(
        paths.pop().as_deref(),
        Some(""),
        "the empty path is one; a null pointer and a bad one are none"
    );
    let expected: Vec<String> = (1..=75).map(|n| format!("/no/{n}")).collect();
    assert_eq!(paths, expected);
}

#[test]
fn r06_data_is_taken_iovec_by_iovec_a_page_at_a_time_and_only_what_was_moved() {
    need!("fuse", "ptrace");
    let recs = moves("moves", &["data"], "genio");
    let mut data: Vec<(bool, String)> = Vec::new();
    let mut times = Vec::new();
    for rec in &recs {
        if let Body::Genio { write, data: bytes, .. } = rec.body() {
            assert!(bytes.len() + 8 <= 4096 && !bytes.is_empty(), "{rec:?}");
            data.push((write, String::from_utf8_lossy(bytes).into_owned()));
            times.push(rec.header.stamp.time);
        }
    }
    let out = [(true, "abc"), (true, "defgh")];
    let back = [(false, "ab"), (false, "cdefgh")];
    let x = "x".repeat(4088);
    let mut expected: Vec<(bool, &str)> = vec![(false, "\n"), (true, "one"), (false, "one")];
    expected.extend(out);
    expected.extend(back);
    expected.extend([(true, "0123456789"), (false, "2345")]);
    expected.extend(out);
    expected.extend([(false, "ab"), (false, "cdefgh89")]);
    expected.extend(out);
    expected.extend([(false, "ab"), (false, "cdefgh89")]);
    expected.extend([(true, "send"), (false, "send")]);
    expected.extend(out);
    expected.extend(back);
    expected.extend([out, out].concat());
    expected.extend([back, back].concat());
    expected.extend([(true, "more than there is room for"), (false, "more")]);
    expected.extend([(true, "message"), (false, "message")]);
    expected.extend([(false, "fa"), (false, "r away")]);
    expected.extend(out);
    expected.extend([(true, x.as_str()), (true, x.as_str()), (true, &x[..10000 - 2 * 4088])]);
    let expected: Vec<(bool, String)> = expected.into_iter().map(|(w, s)| (w, s.to_owned())).collect();
    assert_eq!(data, expected);
    let chunks = data.iter().position(|(_, text)| text.len() == 4088).unwrap();
    assert!(
        times[chunks..chunks + 3].windows(2).all(|t| t[0] == t[1]),
        "all chunks of a call carry one time"
    );
}

/// What a program of data.c says must be seen, and what is seen: direction, descriptor and bytes of each piece.
fn data(program: &str, which: &str) -> (Vec<String>, Vec<String>) {
    let mount = Mount::new();
    let mut tracee = Tracee::start(program, &[]);
    mount.set(tracee.pid(), "set genio size=16M");
    let mut trace = mount.trace(tracee.pid());
    // More than a pipe holds.
    let mut stdout = tracee.running.0.stdout.take().unwrap();
    let printed = std::thread::spawn(move || std::io::read_to_string(&mut stdout).unwrap());
    tracee.say(which);
    let said = |rec: &Rec| match rec.body() {
        Body::Genio { fd, write, data } => {
            let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
            Some(format!("{} {fd} {hex}", if write { 'w' } else { 'r' }))
        }
        _ => None,
    };
    let mut seen: Vec<String> = trace.rest().iter().filter_map(said).collect();
    let expected: Vec<String> = printed.join().unwrap().lines().map(str::to_owned).collect();
    // The first is the byte that it waited for, the last what it has printed.
    seen.remove(0);
    seen.truncate(expected.len());
    (expected, seen)
}

#[test]
fn each_call_that_moves_data_shows_all_of_it() {
    need!("fuse", "ptrace", "ia32");
    for program in ["data", "data32"] {
        for which in ["x", "e"] {
            let (expected, seen) = data(program, which);
            assert!(!expected.iter().any(|line| line.starts_with("wrong")), "{program}: {expected:?}");
            assert!(expected.len() > 4, "{program}");
            for (at, (expected, seen)) in expected.iter().zip(&seen).enumerate() {
                assert_eq!(seen, expected, "{program} {which}, piece {at}");
            }
            assert_eq!(seen.len(), expected.len(), "{program} {which}");
        }
    }
}

#[test]
fn paths_and_buffers_that_the_process_has_never_touched_are_shown() {
    need!("fuse", "ptrace");
    let recs = moves("absent", &[], "namei,genio,execarg");
    let paths: Vec<String> = recs
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::Namei(path) => Some(String::from_utf8_lossy(path).into_owned()),
            _ => None,
        })
        .take_while(|path| !path.contains("ld.so"))
        .collect();
    let mut expected: Vec<String> =
        (1..=8).map(|n| format!("/{}/{n}", if n == 4 || n == 7 { "present" } else { "absent" })).collect();
    expected.push("/bin/true".to_owned());
    assert_eq!(paths, expected);
    let data: Vec<(bool, &[u8])> = recs
        .iter()
        .filter_map(|rec| match rec.body() {
            Body::Genio { write, data, .. } => Some((write, data)),
            _ => None,
        })
        .skip(1)
        .take(4)
        .collect();
    let (one, two) = (&b"untouched"[..], &b"from a file"[..]);
    assert_eq!(data, [(true, one), (false, one), (true, two), (false, two)]);
    assert!(recs.iter().any(|rec| rec.body() == Body::ExecArg(b"true")));
}
