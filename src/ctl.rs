//! The grammar of the `ctl` files (docs/ktracefs.md, "ctl").
//!
//! Table-driven: an unknown word, a wrong value or a missing facility is found in one place, and the error says which
//! word. Pure; what a command means is in [`crate::control`].
//!
//! One word has two meanings. `all` as the first word after the verb is the group of facilities, later it is the target
//! of the root's ctl: `set all all`. `clear` needs no facilities, so there a first `all` is the target unless another
//! target follows; without a target it says the same as `clear` alone, which is what a process's own ctl takes it for.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::facility::Facs;
use crate::policy::Policy;
use crate::syscall::Calls;

/// Whom a command names; without one it is the process of the `ctl` file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// `pid=N`; negative for a group (R13).
    Pid(i32),
    /// `pgrp=N`.
    Pgrp(i32),
    /// `all`: every process the caller may trace.
    All,
}

/// One command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Turn on.
    Set(Set),
    /// Turn off.
    Clear(Clear),
    /// R10.
    ClearFile {
        /// Whose file.
        target: Option<Target>,
        /// Or which descriptor of the caller.
        fd: Option<i32>,
    },
}

/// `set FACS [option...]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// The facilities named, groups resolved but for `all`.
    pub facs: Facs,
    /// `all`: what the backend can give.
    pub all: bool,
    /// `+inherit`.
    pub inherit: bool,
    /// `+descend`.
    pub descend: bool,
    /// `+seccomp`.
    pub seccomp: bool,
    /// `policy=`.
    pub policy: Option<Policy>,
    /// `size=`, bytes.
    pub size: Option<usize>,
    /// `backend=`; `None` for auto.
    pub backend: Option<String>,
    /// `fd=`.
    pub fd: Option<i32>,
    /// `calls=`.
    pub calls: Option<Arc<Calls>>,
    /// Whom.
    pub target: Option<Target>,
}

/// `clear [FACS] [option...]`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Clear {
    /// The facilities to take away; `None` for all, and the inherit flag with them.
    pub facs: Option<Facs>,
    /// `+inherit`: drop the flag too, or alone where `facs` is empty.
    pub inherit: bool,
    /// `+descend`.
    pub descend: bool,
    /// Whom.
    pub target: Option<Target>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opt {
    Inherit,
    Descend,
    Seccomp,
    Policy,
    Size,
    Backend,
    Fd,
    Calls,
    Pid,
    Pgrp,
    All,
}

/// Every option word. One that ends in `=` takes a value.
const OPTIONS: [(&str, Opt); 13] = [
    ("+inherit", Opt::Inherit),
    ("-i", Opt::Inherit),
    ("+descend", Opt::Descend),
    ("-d", Opt::Descend),
    ("+seccomp", Opt::Seccomp),
    ("policy=", Opt::Policy),
    ("size=", Opt::Size),
    ("backend=", Opt::Backend),
    ("fd=", Opt::Fd),
    ("calls=", Opt::Calls),
    ("pid=", Opt::Pid),
    ("pgrp=", Opt::Pgrp),
    ("all", Opt::All),
];

/// The verbs, whether facilities may follow, and the options each takes; `None` for every one.
const VERBS: [(&str, bool, Option<&[Opt]>); 3] = [
    ("set", true, None),
    ("clear", true, Some(&[Opt::Inherit, Opt::Descend, Opt::Pid, Opt::Pgrp, Opt::All])),
    ("clearfile", false, Some(&[Opt::Fd, Opt::Pid, Opt::Pgrp, Opt::All])),
];

const SIZE_UNITS: [(char, usize); 2] = [('M', 1 << 20), ('K', 1 << 10)];

/// One word and where it begins in the line.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Word<'a> {
    fn error(self, what: impl fmt::Display) -> Error {
        Error::Invalid { what: what.to_string(), at: Some((self.at, self.text.len())) }
    }

    fn from(self, offset: usize) -> Word<'a> {
        Word { text: &self.text[offset..], at: self.at + offset }
    }

    /// Cut at each comma.
    fn list(self) -> impl Iterator<Item = Word<'a>> {
        split(self.text, |c| c == ',').map(move |w| Word { at: self.at + w.at, ..w })
    }
}

impl fmt::Display for Word<'_> {
    /// Quoted, control characters made visible, long words cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        match self.text.char_indices().nth(SHOWN) {
            Some((cut, _)) => write!(f, "\"{}...\"", self.text[..cut].escape_debug()),
            None => write!(f, "\"{}\"", self.text.escape_debug()),
        }
    }
}

fn split(text: &str, is_cut: fn(char) -> bool) -> impl Iterator<Item = Word<'_>> {
    let mut at = 0;
    text.split(is_cut).map(move |text| {
        let word = Word { text, at };
        // Every character cut at is one byte.
        at += text.len() + 1;
        word
    })
}

/// Reads one line.
///
/// # Errors
/// EINVAL with the offending word and its place.
pub fn parse(line: &str) -> Result<Command> {
    let mut words = split(line, |c| c == ' ' || c == '\t').filter(|w| !w.text.is_empty()).peekable();
    let first = words.next().ok_or_else(|| Error::invalid("an empty line is no command"))?;
    let Some(&(verb, takes_facs, options)) = VERBS.iter().find(|(name, ..)| *name == first.text) else {
        return Err(first.error(format_args!("unknown command {first}: set, clear or clearfile")));
    };
    // All that any verb takes; what is not for this one is refused below.
    let mut set = Set::default();
    let mut named = false;
    if takes_facs && let Some(word) = words.next_if(|w| option(w.text).is_none_or(|o| o == Opt::All)) {
        let letters = match word.text.strip_prefix("-t") {
            None => None,
            Some("") => Some(words.next().ok_or_else(|| word.error("-t needs letters"))?),
            Some(_) => Some(word.from(2)),
        };
        match letters {
            Some(letters) => by_letters(letters, &mut set)?,
            None => by_names(word, &mut set)?,
        }
        named = true;
    }
    let mut seen = Vec::new();
    for word in words {
        let Some(opt) = option(word.text) else {
            let hint = match Facs::by_name(word.text) {
                Some(_) => ": facilities stand first, separated by commas",
                None => "",
            };
            return Err(word.error(format_args!("unknown word {word}{hint}")));
        };
        if options.is_some_and(|o| !o.contains(&opt)) {
            return Err(word.error(format_args!("{word} does not go with {verb}")));
        }
        if !matches!(opt, Opt::Inherit | Opt::Descend) && seen.contains(&opt) {
            return Err(word.error(format_args!("{word} says again what was said before")));
        }
        seen.push(opt);
        apply(opt, word, &mut set)?;
    }
    match verb {
        // Errors of the file come first (R35).
        "set" if !named && !set.inherit && set.fd.is_none() => {
            Err(first.error("set needs facilities, like \"set syscall,sysret\""))
        }
        "set" => Ok(Command::Set(set)),
        "clear" => Ok(Command::Clear(clear(named, set))),
        _ if set.fd.is_some() && set.target.is_some() => {
            Err(first.error("clearfile takes a descriptor or a process, not both"))
        }
        _ => Ok(Command::ClearFile { target: set.target, fd: set.fd }),
    }
}

fn clear(named: bool, set: Set) -> Clear {
    let facs = match set.all || (!named && !set.inherit) {
        true => None,
        false => Some(set.facs),
    };
    let only_all = set.all && set.facs.is_empty();
    Clear {
        facs,
        inherit: set.inherit && facs.is_some(),
        descend: set.descend,
        target: set.target.or(only_all.then_some(Target::All)),
    }
}

fn option(word: &str) -> Option<Opt> {
    let is = |name: &str| if name.ends_with('=') { word.starts_with(name) } else { word == name };
    OPTIONS.iter().find(|(name, _)| is(name)).map(|&(_, opt)| opt)
}

fn apply(opt: Opt, word: Word<'_>, set: &mut Set) -> Result<()> {
    let value = word.from(word.text.find('=').map_or(word.text.len(), |i| i + 1));
    match opt {
        Opt::Inherit => set.inherit = true,
        Opt::Descend => set.descend = true,
        Opt::Seccomp => set.seccomp = true,
        Opt::Policy => {
            let unknown =
                |()| value.error(format_args!("unknown policy {value}: stop, drop, block or overwrite"));
            set.policy = Some(value.text.parse().map_err(unknown)?);
        }
        Opt::Size => set.size = Some(size(value)?),
        Opt::Backend => set.backend = backend(value)?,
        Opt::Fd => match number(value)? {
            fd @ 0.. => set.fd = Some(fd),
            _ => return Err(value.error(format_args!("{value} is no descriptor"))),
        },
        Opt::Calls => {
            let calls = Calls::parse(value.text).map_err(|unknown| {
                let word = value.list().find(|w| w.text == unknown).unwrap_or(value);
                word.error(format_args!("unknown system call {word}"))
            })?;
            if calls.to_string().is_empty() {
                return Err(value.error(format_args!("calls={value} leaves no system call")));
            }
            set.calls = Some(Arc::new(calls));
        }
        Opt::Pid => target(set, word, Target::Pid(number(value)?))?,
        Opt::Pgrp => target(set, word, Target::Pgrp(number(value)?))?,
        Opt::All => target(set, word, Target::All)?,
    }
    Ok(())
}

fn target(set: &mut Set, word: Word<'_>, target: Target) -> Result<()> {
    match set.target.replace(target) {
        None => Ok(()),
        Some(_) => Err(word.error(format_args!("{word} is a second target"))),
    }
}

fn number(value: Word<'_>) -> Result<i32> {
    // Rust's own parser would take "+5".
    let digits = value.text.strip_prefix('-').unwrap_or(value.text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| value.text.parse().ok()).flatten();
    number.ok_or_else(|| value.error(format_args!("bad number {value}")))
}

fn size(value: Word<'_>) -> Result<usize> {
    let (digits, unit) = SIZE_UNITS
        .iter()
        .find_map(|&(letter, unit)| Some((value.text.strip_suffix(letter)?, unit)))
        .unwrap_or((value.text, 1));
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| digits.parse().ok()).flatten();
    let bytes = number.and_then(|n: usize| n.checked_mul(unit)).filter(|&n| n > 0);
    bytes.ok_or_else(|| value.error(format_args!("bad size {value}: bytes, or a number with K or M")))
}

fn backend(value: Word<'_>) -> Result<Option<String>> {
    match value.text {
        "auto" => Ok(None),
        name if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) => {
            Ok(Some(name.to_owned()))
        }
        _ => Err(value.error(format_args!("bad backend {value}: ptrace, ebpf or auto"))),
    }
}

fn by_names(list: Word<'_>, set: &mut Set) -> Result<()> {
    for word in list.list() {
        match word.text {
            "all" => set.all = true,
            name => {
                let unknown = || word.error(format_args!("unknown facility {word}"));
                set.facs |= Facs::by_name(name).ok_or_else(unknown)?;
            }
        }
    }
    Ok(())
}

fn by_letters(letters: Word<'_>, set: &mut Set) -> Result<()> {
    let facs = Facs::empty()
        .with_letters(letters.text)
        .map_err(|c| letters.error(format_args!("unknown facility letter {c:?} in {letters}")))?;
    // Whoever asks for all does not ask for what nothing on Linux makes.
    let wanted = if letters.text.contains('A') { facs - Facs::MIB } else { facs };
    match wanted {
        _ if facs == Facs::all() => set.all = true,
        f if f.contains(Facs::MIB) => {
            return Err(letters.error("S is sysctl's MIB records: nothing on Linux makes them"));
        }
        f if f.is_empty() => return Err(letters.error(format_args!("{letters} leaves no facility"))),
        f => set.facs = f,
    }
    Ok(())
}

impl fmt::Display for Command {
    /// One line that [`parse`] reads as the same command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Set(set) => set.fmt(f),
            Command::Clear(clear) => clear.fmt(f),
            Command::ClearFile { target, fd: None } => write!(f, "clearfile{}", Or(target)),
            Command::ClearFile { target, fd: Some(fd) } => write!(f, "clearfile fd={fd}{}", Or(target)),
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("set")?;
        match (self.all, self.facs.is_empty()) {
            (true, true) => f.write_str(" all")?,
            (true, false) => write!(f, " all,{}", self.facs)?,
            (false, true) => {}
            (false, false) => write!(f, " {}", self.facs)?,
        }
        flags(f, self.inherit, self.descend)?;
        if self.seccomp {
            f.write_str(" +seccomp")?;
        }
        if let Some(policy) = self.policy {
            write!(f, " policy={policy}")?;
        }
        if let Some(size) = self.size {
            match SIZE_UNITS.iter().find(|(_, unit)| size.is_multiple_of(*unit)) {
                Some((letter, unit)) => write!(f, " size={}{letter}", size / unit)?,
                None => write!(f, " size={size}")?,
            }
        }
        if let Some(backend) = &self.backend {
            write!(f, " backend={backend}")?;
        }
        if let Some(fd) = self.fd {
            write!(f, " fd={fd}")?;
        }
        if let Some(calls) = &self.calls {
            write!(f, " calls={calls}")?;
        }
        write!(f, "{}", Or(&self.target))
    }
}

impl fmt::Display for Clear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("clear")?;
        if let Some(facs) = self.facs
            && !facs.is_empty()
        {
            write!(f, " {facs}")?;
        }
        flags(f, self.inherit, self.descend)?;
        // As the first word `all` stays the target, as no other follows.
        write!(f, "{}", Or(&self.target))
    }
}

fn flags(f: &mut fmt::Formatter<'_>, inherit: bool, descend: bool) -> fmt::Result {
    f.write_str(if inherit { " +inherit" } else { "" })?;
    f.write_str(if descend { " +descend" } else { "" })
}

/// A target, or nothing.
struct Or<'a>(&'a Option<Target>);

impl fmt::Display for Or<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(Target::Pid(pid)) => write!(f, " pid={pid}"),
            Some(Target::Pgrp(pgrp)) => write!(f, " pgrp={pgrp}"),
            Some(Target::All) => f.write_str(" all"),
        }
    }
}
