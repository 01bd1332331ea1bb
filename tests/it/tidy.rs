//! The rules of the house that no compiler holds (docs/contributing.md).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the library and its floor; a module may use its own floor and those below.
const FLOORS: &[(u32, &[&str])] = &[
    (0, &["facility", "record", "syscall", "signal", "errno", "policy", "ctl", "error", "seccomp", "pids"]),
    (1, &["cred", "sink", "proc", "dump", "sys"]),
    (2, &["hooks", "backend", "control", "drain", "stream"]),
    (3, &["ptrace", "ebpf", "launch", "utrace"]),
];
/// What floor 3 may use of floor 2: a source of events reports, it does not decide.
const SOURCES_USE: &[&str] = &["hooks", "backend"];
/// Where unsafe may stand.
const UNSAFE: &[&str] = &["src/sys.rs", "src/ptrace/sys.rs", "src/ebpf/sys.rs", "benches/cost/sys.rs"];
/// Most lines of a source file.
const LINES_MAX: usize = 800;
/// Tables, whose length is that of what they list.
const TABLES: &[&str] = &["src/syscall/"];
/// The roots of the test binaries of tests/it.
const MAINS: [&str; 2] = ["main.rs", "on_ebpf.rs"];
/// Most lines of a decision: one page.
const PAGE: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files under `dir` whose names end so, with their text.
fn files(dir: &str, ends: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                if !name.starts_with("target") && !name.starts_with(".git") {
                    dirs.push(path);
                }
            } else if ends.iter().any(|end| name.ends_with(end)) {
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    files("", &[".rs"])
}

/// Unit tests in a file of their own belong to the module beside it.
fn is_tests(file: &str) -> bool {
    file.ends_with("/tests.rs")
}

/// The lines of a source without its comments and without its unit tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().take_while(|line| *line != "mod tests {");
    code.map(|line| line.split("//").next().unwrap_or(""))
}

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(_, modules)| modules.contains(&module)).map(|(floor, _)| *floor)
}

/// The module of the library that a file belongs to.
fn module(file: &str) -> Option<&str> {
    let name = file.strip_prefix("src/")?;
    let name = name.split('/').next()?.trim_end_matches(".rs");
    (name != "lib" && name != "bin").then_some(name)
}

/// The modules of the library named after `crate::` in a line, also in a list in braces.
fn used(line: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let mut names = Vec::new();
    for after in line.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => names.extend(list.split(',').map(|item| {
                let item = item.trim_start();
                &item[..word(item)]
            })),
            None => names.push(&after[..word(after)]),
        }
    }
    names
}

#[test]
fn every_module_uses_only_its_floor_and_those_below() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(module) = module(&file).filter(|_| !is_tests(&file)) else { continue };
        let Some(own) = floor(module) else {
            wrong.push(format!("{file}: the module {module} stands on no floor"));
            continue;
        };
        for (line, used) in code(&text).flat_map(|line| used(line).into_iter().map(move |u| (line, u))) {
            let Some(other) = floor(used) else { continue };
            let allowed = match (own, other) {
                (3, 3) => used == module,
                (3, 2) => SOURCES_USE.contains(&used),
                _ => other <= own,
            };
            let allowed = allowed && !(own == 3 && used == "ctl");
            if !allowed {
                wrong.push(format!("{file}: floor {own} may not use {used}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_floor_test_sees_what_a_module_uses() {
    assert_eq!(used("use crate::sink::{Sink, Reader};"), ["sink"]);
    assert_eq!(used("use crate::{ctl, proc::Proc};"), ["ctl", "proc"]);
    assert_eq!(used("let x = crate::sys::exec(crate::proc::pid());"), ["sys", "proc"]);
    assert_eq!(module("src/ptrace/stop.rs"), Some("ptrace"));
    assert_eq!(module("src/lib.rs"), None);
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let keyword = concat!("un", "safe");
    for (file, text) in sources() {
        let has = code(&text)
            .any(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == keyword));
        assert!(!has || UNSAFE.contains(&file.as_str()), "{file} has {keyword} code");
    }
    let forbid = format!("#![forbid({keyword}_code)]");
    let mains = files("src/bin", &[".rs"]).into_iter().chain(files("mountd/src", &["main.rs"]));
    for (file, text) in mains {
        assert!(text.contains(&forbid), "{file} does not forbid {keyword} code");
    }
}

#[test]
fn the_library_and_the_tools_do_not_know_fuse() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, package) = manifest.split_once("[package]").unwrap();
    assert!(!package.contains("fuser"));
    for (file, text) in files("src", &[".rs"]) {
        assert!(code(&text).all(|line| !line.contains("fuser::")), "{file}");
    }
}

#[test]
fn no_file_is_too_long() {
    for (file, text) in sources() {
        if !TABLES.iter().any(|table| file.starts_with(table)) {
            let lines = text.lines().count();
            assert!(lines <= LINES_MAX, "{file} has {lines} lines: split it by meaning");
        }
    }
    for (file, text) in files("docs/decisions", &[".md"]) {
        let lines = text.lines().count();
        assert!(lines <= PAGE, "{file} has {lines} lines: a decision is one page");
    }
}

#[test]
fn every_source_says_what_it_is() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! ") || is_tests(&file), "{file} begins without a word about itself");
    }
}

#[test]
fn documents_are_there() {
    for name in ["README.md", "LICENSE", "docs/architecture.md", "docs/contributing.md", "docs/glossary.md"] {
        assert!(root().join(name).is_file(), "{name}");
    }
    let changelog = fs::read_to_string(root().join("docs/changelog.md")).unwrap();
    let version = format!("## {}", env!("CARGO_PKG_VERSION"));
    assert!(changelog.contains(&version), "docs/changelog.md has no {version:?}");
}

/// Links between our documents lead somewhere.
#[test]
fn links_lead_somewhere() {
    for (file, text) in files("", &[".md"]) {
        let dir = root().join(&file).parent().unwrap().to_owned();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                assert!(dir.join(path).exists(), "{file} links to {link}");
            }
        }
    }
}

/// Anyone may clone this: no path of somebody's machine, no note to oneself.
#[test]
fn no_word_that_means_nothing_to_a_stranger() {
    let words = [concat!("/wo", "rk/"), concat!("/home", "/"), concat!("TO", "DO"), concat!("FIX", "ME")];
    for (file, text) in files("", &[".rs", ".md", ".toml", ".c", ".h", "run"]) {
        for word in words {
            assert!(!text.contains(word), "{file} has {word:?}");
        }
    }
}

#[test]
fn the_lists_of_tests_are_their_contents() {
    let mut listed = BTreeSet::new();
    for main in MAINS {
        let text = fs::read_to_string(root().join("tests/it").join(main)).unwrap();
        listed.extend(
            text.lines().filter_map(|line| Some(line.strip_prefix("mod ")?.trim_end_matches(';').to_owned())),
        );
    }
    let there: BTreeSet<String> = fs::read_dir(root().join("tests/it"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !MAINS.contains(&name.as_str()))
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    assert_eq!(listed, there);
    let texts = MAINS.map(|main| fs::read_to_string(root().join("tests/it").join(main)).unwrap());
    for name in listed {
        let said = texts.iter().filter(|text| text.contains(&format!("[`{name}`] |"))).count();
        assert_eq!(said, 1, "what {name} proves is to be said once");
    }
}
