//! ktrace(1): records what processes do into a file, for kdump.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ktrace::launch::{self, Ended, Failure, Mount, Records, Request, Session, Whom};
use ktrace::record;

/// Trace a command, a process or a process group into a file; read it with kdump.
///
/// With a command it ends as the command does; with -p or -g it returns at once and tracing goes on. Where no ktracefs
/// is mounted, or an older version is wanted, it stays and writes the file itself until the last traced process ends.
#[derive(Parser, Debug)]
#[command(version, args_override_self = true)]
struct Options {
    /// Append to the file instead of truncating it
    #[arg(short = 'a')]
    append: bool,
    /// Clear everything that is yours; root: everything
    #[arg(short = 'C', conflicts_with_all = ["clear", "pid", "pgrp", "command"])]
    clear_all: bool,
    /// Clear tracing of the process (-p), of the group (-g), or of all that write to the file (-f)
    #[arg(short = 'c', conflicts_with = "command")]
    clear: bool,
    /// Descend to present children as well
    #[arg(short = 'd')]
    descend: bool,
    /// Write the records to FILE, - is standard output
    #[arg(short = 'f', value_name = "FILE", default_value = "ktrace.out", allow_hyphen_values = true)]
    file: PathBuf,
    /// Trace the process group
    #[arg(short = 'g', value_name = "PGRP", conflicts_with_all = ["pid", "command"])]
    pgrp: Option<i32>,
    /// Future children inherit tracing
    #[arg(short = 'i')]
    inherit: bool,
    /// These system calls only, !NAME for all but these
    #[arg(long, value_name = "NAME,...", conflicts_with_all = ["clear", "clear_all"])]
    calls: Option<String>,
    /// What is not wanted does not stop the command: by a seccomp filter of its own. Needs -i
    #[arg(long, requires = "inherit", requires = "command", conflicts_with_all = ["pid", "pgrp"])]
    seccomp_bpf: bool,
    /// By which backend: ptrace, which makes the traced wait for us and loses nothing, or ebpf, which stops nobody and tells
    /// what it lost. Without: ebpf where it can do what is asked
    #[arg(long, value_parser = ["auto", "ebpf", "ptrace"])]
    backend: Option<String>,
    /// Give tracing up where records do not fit, instead of making the traced wait
    #[arg(short = 'n')]
    never_wait: bool,
    /// Trace the process
    #[arg(short = 'p', value_name = "PID", conflicts_with = "command")]
    pid: Option<i32>,
    /// Write through to the disk
    #[arg(short = 's')]
    sync: bool,
    /// What to trace: c calls, n paths, i data, s signals, u user, w switches, e emulation, a v f exec, A all,
    /// + the default set, - removes what follows
    #[arg(short = 't', value_name = "POINTS", allow_hyphen_values = true, action = clap::ArgAction::Append)]
    points: Vec<String>,
    /// Version of the format
    #[arg(short = 'v', value_name = "VERSION", default_value_t = record::VERSION,
        value_parser = clap::value_parser!(u8).range(0..=2))]
    version_out: u8,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    launch::intercept();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ktrace: {failure}");
            ExitCode::from(failure.status)
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let whom = match (options.pid, options.pgrp) {
        (Some(pid), _) => Some(Whom::Pid(pid)),
        (_, Some(pgrp)) => Some(Whom::Pgrp(pgrp)),
        _ => None,
    };
    let facs = Request::points(&options.points)?;
    if options.clear_all || options.clear {
        if options.clear && whom.is_none() {
            return launch::clear_file(&options.file);
        }
        let facs = (!options.points.is_empty()).then_some(facs);
        return launch::clear(whom.as_ref(), facs, options.descend);
    }
    let whom = match whom {
        Some(whom) => whom,
        None if options.command.is_empty() => return Err(Failure::new("a command, -p or -g is needed")),
        None => Whom::Command(options.command.clone()),
    };
    let request = Request {
        facs,
        inherit: options.inherit,
        descend: options.descend,
        never_wait: options.never_wait,
        backend: options.backend.clone(),
        fd: None,
        calls: options.calls.clone(),
        seccomp: options.seccomp_bpf,
    };
    let mut out = Records::to(&options.file, options.append, options.sync, options.version_out)?;
    match (Mount::find(), out.as_stream()) {
        (Some(mount), Some(file)) => return launch::hand_over(&mount, &whom, &request, file),
        (None, _) if options.command.is_empty() => {
            eprintln!("ktrace: no ktracefs is mounted; this one stays until tracing ends");
        }
        _ => {}
    }
    let mut session = Session::start(&whom, &request)?;
    let ended = session.follow(|bytes| out.write(bytes)).unwrap_or_else(|e| Ended::failed("ktrace", &e));
    session.finish(ended)
}
