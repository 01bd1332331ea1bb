//! What the documents say is so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::mount::{program, scratch};
use crate::support::{need, output};

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A directory whose mount, if a session left one there, goes with it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // The session has unmounted it, unless it failed.
        let _ = nix::mount::umount2(&self.0.join("m"), nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_session_of_the_readme_works_when_pasted() {
    need!("fuse", "ptrace");
    let readme = document("README.md");
    let section = readme.split("## A session\n").nth(1).unwrap();
    let lines = section.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let session: Vec<&str> = lines.map(str::trim_start).collect();
    assert!(session.len() > 10, "{session:?}");
    let dir = Scratch(scratch("readme"));
    let mount = dir.0.join("m");
    let bin = program().parent().unwrap();
    let script = session
        .join("\n")
        .replace("target/release", bin.to_str().unwrap())
        .replace("/ktrace/", &format!("{}/", mount.display()))
        .replace("/ktrace ", &format!("{} ", mount.display()))
        .replace("/ktrace\n", &format!("{}\n", mount.display()))
        .replace("/tmp/out", dir.0.join("out").to_str().unwrap());
    let out = output(Command::new("bash").args(["-c", &script]));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let complained = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{script}\n{said}\n{complained}");
    for words in
        ["EMUL  \"linux\"", "set syscall,sysret,namei", "facilities syscall,sysret,namei", "usr", "^^^^^^"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
    let listed = said.lines().filter(|line| line.contains(" ls ") && line.ends_with("NAMI  \"/\""));
    assert!(listed.count() > 0, "{said}");
    assert_eq!(
        complained.matches("Invalid argument").count(),
        1,
        "the refusal, and nothing else: {complained}"
    );
    assert_eq!(complained.lines().count(), 1, "{complained}");
    assert!(!ktrace::launch::mounted().iter().any(|m| m.point == mount), "unmounted at its end");
}

/// Every rule has one test named for it, a row that names the test, and a place where it can be broken.
#[test]
fn each_rule_has_one_test_one_row_and_one_break() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules: Vec<String> =
        (1..=38).map(|n| format!("R{n}")).chain((1..=9).map(|n| format!("F{n}"))).collect();
    let matrix = document("docs/semantics.md");
    let breaks = document("tests/breaks.txt");
    let there = tests();
    for rule in &rules {
        let (letter, number) = rule.split_at(1);
        let number: u32 = number.parse().unwrap();
        let prefix = if letter == "R" { format!("r{number:02}_") } else { format!("f{number}_") };
        let named: Vec<&String> = there.iter().filter(|test| test.starts_with(&prefix)).collect();
        assert_eq!(named.len(), 1, "{rule}: {named:?}");
        let row = matrix.lines().find(|line| line.starts_with(&format!("| {rule} "))).expect(rule);
        assert!(row.ends_with(&format!("| `{}` |", named[0])), "{row}");
        if letter == "R" {
            let how = row.split(" | ").nth(1).unwrap();
            let words = ["same", "different because", "cannot because"];
            assert!(words.iter().any(|word| how.starts_with(word)), "{row}");
        }
        let breaks: Vec<&str> = breaks.lines().filter(|line| line.starts_with(&format!("{rule} "))).collect();
        assert_eq!(breaks.len(), 1, "{rule}: {breaks:?}");
    }
    let hazards = document("docs/ptrace.md").lines().filter(|line| line.contains("| `hazard_")).count();
    let mut entries = 0;
    for entry in breaks.split("\n\n").skip(1) {
        let mut lines = entry.lines();
        let (rule, file) = lines.next().unwrap().split_once(' ').unwrap();
        let old: Vec<&str> = lines.filter_map(|line| line.strip_prefix('-')).collect();
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert_eq!(text.matches(&old.join("\n")).count(), 1, "{rule}: its text is to be in {file} once");
        entries += 1;
    }
    assert_eq!(entries, rules.len() + hazards, "each rule and each hazard can be broken");
}

/// Tests that a document names in backquotes are there; `*` stands for the rest of a name.
#[test]
fn tests_named_as_a_proof_exist() {
    let there = tests();
    let mut named = 0;
    for file in ["docs/semantics.md", "docs/ptrace.md"] {
        let text = document(file);
        for name in text.split('`').skip(1).step_by(2) {
            let numbered = |prefix: &str| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            if !(numbered("r") || numbered("f") || numbered("hazard_")) || !name.contains('_') {
                continue;
            }
            named += 1;
            let found = match name.strip_suffix('*') {
                Some(start) => there.iter().any(|test| test.starts_with(start)),
                None => there.contains(name),
            };
            assert!(found, "{file} names {name}, which is no test");
        }
    }
    assert!(named > 20, "only {named} tests are named");
}

/// Names of all functions of the workspace, tests among them.
fn tests() -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    let mut dirs =
        ["src", "tests", "mountd"].map(|dir| Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).to_vec();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let names =
                    text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next());
                there.extend(names.map(str::to_owned));
            }
        }
    }
    there
}
