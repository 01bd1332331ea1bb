//! Every form of a command, and what is no command.

use super::*;
use proptest::prelude::*;

fn set(line: &str) -> Set {
    match parse(line).unwrap() {
        Command::Set(set) => set,
        other => panic!("{line}: {other:?}"),
    }
}

fn clear(line: &str) -> Clear {
    match parse(line).unwrap() {
        Command::Clear(clear) => clear,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn every_word_means_what_it_says() {
    let all = set(
        "set syscall,default\t-i +descend policy=drop size=3M backend=ptrace fd=4 calls=read,openat pgrp=7",
    );
    assert_eq!(all.facs, Facs::DEFAULT);
    assert!(all.inherit && all.descend && !all.all);
    assert_eq!((all.policy, all.size, all.fd), (Some(Policy::Drop), Some(3 << 20), Some(4)));
    assert_eq!((all.backend.as_deref(), all.target), (Some("ptrace"), Some(Target::Pgrp(7))));
    assert_eq!(all.calls.unwrap().to_string(), "openat,read");
    assert_eq!(set("set -t cn -d").facs, Facs::SYSCALL | Facs::SYSRET | Facs::NAMEI);
    assert_eq!(set("set -tw").facs, Facs::CSW);
    assert_eq!(set("set user backend=auto").backend, None);
    assert_eq!(set("set user size=5").size, Some(5));
    assert_eq!(set("set user pid=-12").target, Some(Target::Pid(-12)));
    assert_eq!(parse("clearfile").unwrap(), Command::ClearFile { target: None, fd: None });
    assert_eq!(
        parse(" clearfile  pid=3 ").unwrap(),
        Command::ClearFile { target: Some(Target::Pid(3)), fd: None }
    );
}

#[test]
fn all_is_a_group_first_and_a_target_later() {
    let facs = set("set all");
    assert!(facs.all && facs.target.is_none() && facs.facs.is_empty());
    assert_eq!(set("set all all").target, Some(Target::All));
    assert_eq!(set("set -t A").all, set("set all").all);
    let but = set("set -t A-w");
    assert!(!but.all && but.facs == Facs::all() - Facs::CSW - Facs::MIB);
    assert_eq!(set("set csw all").target, Some(Target::All));
    assert_eq!(clear("clear all"), Clear { target: Some(Target::All), ..Clear::default() });
    assert_eq!(clear("clear all pid=5"), Clear { target: Some(Target::Pid(5)), ..Clear::default() });
    // The flag goes with all facilities: what is printed must not mean the flag alone.
    assert_eq!(clear("clear all +inherit pid=5"), clear("clear all pid=5"));
    assert_eq!(clear("clear csw all").target, Some(Target::All));
}

#[test]
fn clear_tells_the_flag_from_the_facilities() {
    assert_eq!(clear("clear"), Clear::default());
    let flag = clear("clear +inherit");
    assert!(flag.inherit && flag.facs == Some(Facs::empty()));
    let both = clear("clear csw -i");
    assert!(both.inherit && both.facs == Some(Facs::CSW));
    assert_eq!(clear("clear +descend"), Clear { descend: true, ..Clear::default() });
}

#[test]
fn set_without_facilities_is_einval_and_the_inherit_flag_counts_as_one() {
    for line in ["set", "set +descend", "set policy=drop", "set pid=4"] {
        assert_eq!(parse(line).unwrap_err().errno(), libc::EINVAL, "{line}");
    }
    assert!(set("set +inherit").facs.is_empty());
}

#[test]
fn f5_active_has_no_name() {
    for name in ["active", "ACTIVE", "0x20000000"] {
        assert_eq!(parse(&format!("set syscall,{name}")).unwrap_err().errno(), libc::EINVAL, "{name}");
    }
}

#[test]
fn r16_root_has_no_name() {
    for name in ["root", "ROOT", "inherit", "persistent", "mib", "0x80000000"] {
        assert_eq!(parse(&format!("set syscall,{name}")).unwrap_err().errno(), libc::EINVAL, "{name}");
    }
}

#[test]
fn a_wrong_word_is_quoted_and_pointed_at() {
    #[rustfmt::skip]
    let table = [
        ("frob", "frob"), ("set syscal", "syscal"), ("set syscall,,user", ""), ("set  csw nonsense", "nonsense"),
        ("set csw user", "user"), ("set csw size=", ""), ("set csw size=0", "0"), ("set csw size=1G", "1G"),
        ("set csw size=99999999999999M", "99999999999999M"), ("set csw policy=none", "none"), ("set csw fd=-1", "-1"),
        ("set csw pid=+1", "+1"), ("set csw pid=99999999999", "99999999999"), ("set csw pid=1 pgrp=2", "pgrp=2"),
        ("set csw pid=1 pid=2", "pid=2"), ("clear csw size=4", "size=4"), ("clearfile csw", "csw"),
        ("clearfile +descend", "+descend"), ("set -t cQ", "cQ"), ("set -t", "-t"), ("set -t S", "S"),
        ("set csw calls=read,nosuch", "nosuch"), ("set csw calls=read,!read", "read,!read"), ("set csw backend=", ""),
        ("set csw +fast", "+fast"), ("set csw=1", "csw=1"),
    ];
    for (line, word) in table {
        let Err(Error::Invalid { what, at: Some((at, len)) }) = parse(line) else { panic!("{line}") };
        assert_eq!(line.get(at..at + len), Some(word), "{line}: {what}");
        assert!(
            !what.is_empty() && (len == 0 || word == "-t" || word == "S" || what.contains(word)),
            "{what}"
        );
    }
    assert_eq!(parse(" \t").unwrap_err().errno(), libc::EINVAL);
}

fn facs() -> impl Strategy<Value = Facs> {
    any::<u32>().prop_map(|bits| Facs::from_bits_truncate(bits) - Facs::MIB)
}

fn target() -> impl Strategy<Value = Option<Target>> {
    let some = prop_oneof![
        any::<i32>().prop_map(Target::Pid),
        any::<i32>().prop_map(Target::Pgrp),
        Just(Target::All)
    ];
    proptest::option::of(some)
}

fn policy() -> impl Strategy<Value = Option<Policy>> {
    proptest::option::of(prop_oneof![
        Just(Policy::Stop),
        Just(Policy::Drop),
        Just(Policy::Block),
        Just(Policy::Overwrite)
    ])
}

prop_compose! {
    fn any_set()(facs in facs(), all: bool, inherit: bool, descend: bool, seccomp: bool, policy in policy(),
                 size in proptest::option::of(1..usize::MAX), backend in proptest::option::of("[b-z][a-z0-9]{0,5}"),
                 fd in proptest::option::of(0..i32::MAX), calls in proptest::option::of("(!?read|!openat,!futex|write)"),
                 target in target()) -> Command {
        let inherit = inherit || (facs.is_empty() && !all);
        let calls = calls.map(|list| Arc::new(Calls::parse(&list).unwrap()));
        Command::Set(Set { facs, all, inherit, descend, seccomp, policy, size, backend, fd, calls, target })
    }
}

prop_compose! {
    fn any_clear()(facs in proptest::option::of(facs()), inherit: bool, descend: bool, target in target()) -> Command {
        let inherit = facs.is_some_and(|f| inherit || f.is_empty());
        Command::Clear(Clear { facs, inherit, descend, target })
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(
        command in prop_oneof![any_set(), any_clear(), target().prop_map(|target| Command::ClearFile { target, fd: None }),
            (0..i32::MAX).prop_map(|fd| Command::ClearFile { target: None, fd: Some(fd) })]
    ) {
        let line = command.to_string();
        prop_assert_eq!(parse(&line), Ok(command), "{}", line);
    }

    #[test]
    fn any_input_gives_a_command_or_a_place_in_the_line(line in any::<String>()) {
        check(&line);
    }

    #[test]
    fn any_words_give_a_command_or_a_place_in_the_line(
        words in proptest::collection::vec("(set|clear|clearfile|all|default|-t|A-w|csw,user|[+]inherit|pid=[0-9+-]{0,3}|\
            size=[0-9]{0,3}[KMé]?|policy=(drop)?|calls=!?(read)?,?|backend=\\PC?|é|\t)", 0..6)
    ) {
        check(&words.join(" "));
    }
}

fn check(line: &str) {
    match parse(line) {
        Ok(command) => assert_eq!(parse(&command.to_string()), Ok(command)),
        Err(Error::Invalid { at: Some((at, len)), .. }) => assert!(line.get(at..at + len).is_some()),
        Err(error) => assert!(line.trim_matches([' ', '\t']).is_empty(), "{line:?}: {error}"),
    }
}
