//! The tables against themselves and against the C headers.

use std::collections::BTreeMap;
use std::process::Command;

use super::*;

#[test]
fn every_number_has_its_call() {
    let shared = Abi::ALL.map(|abi| (calls::NUMBERS, abi));
    let own = [(x86_64::NUMBERS, Abi::Linux), (i386::NUMBERS, Abi::Linux32), (x86_64::X32, Abi::LinuxX32)];
    for (rows, abi) in own.into_iter().chain(shared) {
        let mut next = 0;
        for (first, names) in rows {
            assert!(*first >= next, "{first} is given twice");
            for (n, name) in names.split(' ').enumerate() {
                next = first + n + 1;
                assert_eq!(lookup(abi, (first + n) as i64).map(|c| c.name), Some(name));
            }
        }
    }
}

#[test]
fn every_call_is_used_and_sorted() {
    for list in [calls::CALLS, i386::CALLS, x86_64::X32_CALLS] {
        assert!(list.is_sorted_by(|a, b| a.name < b.name));
        for call in list {
            assert!(Abi::ALL.iter().any(|&abi| by_name(abi, call.name).is_some()), "{}", call.name);
            assert!(call.args.len() <= 6, "{}", call.name);
        }
    }
}

#[test]
fn data_is_where_the_arguments_say() {
    for call in Abi::ALL.into_iter().flat_map(numbers).map(|(_, call)| call) {
        let Some(io) = call.io else { continue };
        assert!(io.fd.is_none_or(|fd| call.args[usize::from(fd)] == Arg::Fd), "{}", call.name);
        let (ptr, len) = match io.data {
            Data::Msg { ptr } => (ptr, None),
            Data::Buf { ptr, len } | Data::Whole { ptr, len } | Data::Msgbuf { ptr, len } => (ptr, Some(len)),
            Data::Iov { ptr, count } | Data::Mmsg { ptr, count } => (ptr, Some(count)),
        };
        assert_eq!(call.args[usize::from(ptr)], Arg::Ptr, "{}", call.name);
        assert!(len.is_none_or(|len| call.args[usize::from(len)] == Arg::Size), "{}", call.name);
    }
}

/// Names and numbers by the C headers of this system, which may be older than the tables.
#[test]
fn the_c_headers_agree() {
    for (abi, header) in [
        (Abi::Linux, "asm/unistd_64.h"),
        (Abi::Linux32, "asm/unistd_32.h"),
        (Abi::LinuxX32, "asm/unistd_x32.h"),
    ] {
        let Some(found) = header_numbers(header) else {
            eprintln!("SKIP: no C compiler with {header}");
            continue;
        };
        assert!(found.len() > 300, "{header}: {} names", found.len());
        for (&n, name) in &found {
            assert_eq!(lookup(abi, n).map(|c| c.name), Some(name.as_str()), "{abi:?} {n}");
        }
        let last = found.keys().filter(|&&n| n < 512).max().copied().unwrap_or(0);
        for (n, call) in numbers(abi).filter(|&(n, _)| n < 424 && n <= last) {
            // Younger than the others of their range: uretprobe and uprobe.
            assert!(found.contains_key(&n) || matches!(n, 335 | 336), "{abi:?} {n} {}", call.name);
        }
    }
}

fn header_numbers(header: &str) -> Option<BTreeMap<i64, String>> {
    let out =
        Command::new("cc").args(["-E", "-dM", "-include", header, "-x", "c", "/dev/null"]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok().filter(|_| out.status.success())?;
    let defines = text.lines().filter_map(|l| l.strip_prefix("#define __NR_")?.split_once(' '));
    Some(
        defines
            .filter_map(|(name, value)| {
                let value = value.trim_matches(|c| c == '(' || c == ')');
                let value = value.strip_prefix("__X32_SYSCALL_BIT + ").unwrap_or(value);
                Some((value.parse().ok()?, name.to_owned()))
            })
            .collect(),
    )
}

#[test]
fn a_number_outside_the_tables_is_no_call() {
    for n in [-1, i64::MIN, NUMBERS as i64, i64::MAX, 400, 512] {
        assert_eq!(lookup(Abi::Linux, n), None, "{n}");
    }
    assert_eq!(lookup(Abi::LinuxX32, 0x4000_0000 + 514).map(|c| c.name), Some("ioctl"));
    assert_eq!(lookup(Abi::LinuxX32, 16), None, "x32 has its own ioctl");
    assert_eq!(lookup(Abi::Linux, 469).map(|c| c.name), Some("file_setattr"));
}

#[test]
fn a_name_chooses_its_call_in_every_abi() {
    let calls = Calls::parse("openat,read,llseek").unwrap_err();
    assert_eq!(calls, "llseek");
    let calls = Calls::parse("openat,read,waitpid").unwrap();
    assert!(calls.contains(Abi::Linux, 257) && calls.contains(Abi::Linux32, 295));
    assert!(calls.contains(Abi::LinuxX32, 257) && calls.contains(Abi::LinuxX32, X32_BIT + 257));
    assert!(calls.contains(Abi::Linux32, 7), "waitpid is i386's alone");
    assert!(!calls.contains(Abi::Linux, 1) && !calls.contains(Abi::Linux, -1));
    assert!(!calls.contains(Abi::Linux, i64::MAX));
    assert_eq!(calls.to_string(), "openat,read,waitpid");
}

#[test]
fn a_list_that_begins_with_not_starts_from_all() {
    let calls = Calls::parse("!futex").unwrap();
    assert!(calls.contains(Abi::Linux, 0) && !calls.contains(Abi::Linux, 202));
    assert_eq!(calls.to_string(), "!futex");
    assert_eq!(Calls::parse("read,write,!read").unwrap(), Calls::parse("write").unwrap());
    assert_eq!(Calls::parse("!read,read").map(|c| c.to_string().is_empty()), Ok(false));
    for bad in ["", ",", "read,", "!", "!!read", "read write"] {
        assert!(Calls::parse(bad).is_err(), "{bad:?}");
    }
}

fn of(abi: Abi, name: &str) -> &'static Syscall {
    lookup(abi, by_name(abi, name).unwrap()).unwrap()
}

#[test]
fn paths_stand_in_the_order_of_the_arguments_and_behind_commands() {
    let paths = |name: &str, args: [u64; 6]| of(Abi::Linux, name).paths(&args).collect::<Vec<_>>();
    let args = [1, 2, 3, 4, 5, 6];
    assert_eq!(paths("rename", args), [Place::String(1), Place::String(2)]);
    assert_eq!(paths("linkat", args), [Place::String(2), Place::String(4)]);
    assert_eq!(paths("symlinkat", args), [Place::String(1), Place::String(3)]);
    assert_eq!(paths("connect", args), [Place::Sockaddr { addr: 2, len: 3 }]);
    assert_eq!(paths("sendto", args), [Place::Sockaddr { addr: 5, len: 6 }]);
    assert_eq!(paths("sendmsg", args), [Place::Msg(2)]);
    assert_eq!(paths("sendmmsg", args), [Place::Mmsg { addr: 2, count: 3 }]);
    for name in ["recvmsg", "recvmmsg", "recvfrom", "accept", "read", "bpf", "fsconfig", "getxattrat"] {
        let path: &[Place] = if name == "getxattrat" { &[Place::String(2)] } else { &[] };
        assert_eq!(paths(name, args), path, "{name}");
    }
    for (command, path) in [(3, true), (4, true), (1, false), (5, false), (1 << 32 | 3, true)] {
        let found = paths("fsconfig", [9, command, 2, 3, 4, 5]);
        assert_eq!(found == [Place::String(3)], path, "{command}");
    }
    assert_eq!(paths("quotactl", [0x80_0002 << 8 | 1, 2, 3, 4, 0, 0]), [Place::String(2), Place::String(4)]);
    assert_eq!(paths("quotactl", [0x80_0003 << 8 | 1, 2, 3, 4, 0, 0]), [Place::String(2)]);
    for (command, path) in [(5, false), (6, true), (7, true), (8, false)] {
        assert_eq!(paths("bpf", [command, 2, 3, 0, 0, 0]) == [Place::Pointer(2)], path, "{command}");
    }
}

#[test]
fn a_multiplexer_stands_for_other_calls() {
    let call = |name: &str, args: [u64; 6], memory: &[u64]| {
        let words = |addr: u64, count: usize| {
            assert_eq!(addr, 0x1000);
            memory.iter().copied().take(count).collect()
        };
        multiplexed(of(Abi::Linux32, name), &args, words).map(|(call, args)| (call.name, args))
    };
    let socket = |which, memory: &[u64]| call("socketcall", [which, 0x1000, 9, 9, 9, 9], memory);
    assert_eq!(socket(3, &[1, 2, 3, 4]), Some(("connect", [1, 2, 3, 0, 0, 0])));
    assert_eq!(socket(9, &[1, 2, 3, 4, 5, 6]), Some(("sendto", [1, 2, 3, 4, 0, 0])));
    assert_eq!(socket(12, &[1, 2, 3, 4, 5, 6]), Some(("recvfrom", [1, 2, 3, 4, 5, 6])));
    assert_eq!(socket(20, &[1, 2, 3, 4, 5]), Some(("sendmmsg", [1, 2, 3, 4, 0, 0])));
    assert_eq!(socket(12, &[1, 2, 3, 4, 5]), None, "not all of them can be read");
    for which in [0, 21, u64::MAX] {
        assert_eq!(socket(which, &[]), None);
    }
    let ipc = |which, memory: &[u64]| call("ipc", [which, 2, 3, 4, 0x1000, 6], memory);
    assert_eq!(ipc(11, &[]), Some(("msgsnd", [2, 0x1000, 3, 4, 0, 0])));
    assert_eq!(ipc(12, &[7, 8]), Some(("msgrcv", [2, 7, 3, 8, 4, 0])));
    assert_eq!(ipc(1 << 16 | 12, &[]), Some(("msgrcv", [2, 0x1000, 3, 6, 4, 0])));
    assert_eq!(ipc(12, &[7]), None);
    assert_eq!(ipc(1, &[]), None, "semop moves no data");
    assert_eq!(call("read", [0; 6], &[]), None);
}

/// x32 takes an offset whole, i386 in two halves.
#[test]
fn offsets_are_as_the_abi_passes_them() {
    for (name, counts) in [("preadv", [5, 5, 4]), ("pwritev2", [6, 6, 5]), ("pread64", [4, 5, 4])] {
        assert_eq!(Abi::ALL.map(|abi| of(abi, name).args.len()), counts, "{name}");
    }
}

#[test]
fn the_calls_that_change_what_may_be_seen() {
    let all =
        ["setuid", "setgid32", "setresuid", "setfsgid", "setreuid32", "prctl", "capset", "unshare", "setns"];
    assert!(all.iter().all(|name| changes_access(name)));
    assert!(
        !["setsid", "setpgid", "setitimer", "set_robust_list", "getuid", ""]
            .iter()
            .any(|n| changes_access(n))
    );
}
