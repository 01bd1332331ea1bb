//! ktruss(1): prints what processes do, when they do it, one line per call.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{ArgAction, Parser};
use ktrace::dump::{self, Emulation, Truss};
use ktrace::launch::{self, Ended, Failure, Records, Request, Session, Whom};
use ktrace::record::{self, Decoder};

/// How often -l looks for more.
const FOLLOW: Duration = Duration::from_millis(100);
/// Bytes of one read of -f.
const BUFFER: usize = 64 << 10;

/// Print the calls of a command, a process or a process group as they happen, or those recorded in a file.
///
/// Ends with the last traced process, with the command's own status.
#[derive(Parser, Debug)]
#[command(version, args_override_self = true)]
struct Cli {
    /// Append to the file of -o instead of truncating it
    #[arg(short = 'a')]
    append: bool,
    /// Clear everything that is yours; root: everything
    #[arg(short = 'C', conflicts_with_all = ["clear", "pid", "pgrp", "command"])]
    clear_all: bool,
    /// Clear tracing of the process (-p) or the group (-g)
    #[arg(short = 'c', conflicts_with = "command")]
    clear: bool,
    /// Descend to present children as well
    #[arg(short = 'd')]
    descend: bool,
    /// Take processes of which the stream does not say it to be in this emulation
    #[arg(short = 'e', value_name = "EMULATION")]
    emulation: Option<String>,
    /// Show the time since the first record
    #[arg(short = 'E')]
    elapsed: bool,
    /// Print the records of FILE, - is standard input
    #[arg(short = 'f', value_name = "FILE", allow_hyphen_values = true,
        conflicts_with_all = ["pid", "pgrp", "command", "outfile"])]
    infile: Option<PathBuf>,
    /// Trace the process group
    #[arg(short = 'g', value_name = "PGRP", conflicts_with_all = ["pid", "command"])]
    pgrp: Option<i32>,
    /// Future children inherit tracing
    #[arg(short = 'i')]
    inherit: bool,
    /// These system calls only, !NAME for all but these
    #[arg(long, value_name = "NAME,...", conflicts_with_all = ["infile", "clear", "clear_all"])]
    calls: Option<String>,
    /// What is not wanted does not stop the command: by a seccomp filter of its own. Needs -i
    #[arg(long, requires = "inherit", requires = "command", conflicts_with_all = ["pid", "pgrp"])]
    seccomp_bpf: bool,
    /// By which backend: ptrace, which makes the traced wait for us and loses nothing, or ebpf, which stops nobody and tells
    /// what it lost. Without: ebpf where it can do what is asked
    #[arg(long, value_parser = ["auto", "ebpf", "ptrace"])]
    backend: Option<String>,
    /// At the end of the file of -f, wait for more
    #[arg(short = 'l', requires = "infile")]
    follow: bool,
    /// Show at most this many bytes of the data of one record
    #[arg(short = 'm', value_name = "BYTES")]
    max_data: Option<usize>,
    /// Give tracing up where records do not fit, instead of making the traced wait
    #[arg(short = 'n')]
    never_wait: bool,
    /// Write the records to FILE, - is standard output, instead of printing them
    #[arg(short = 'o', value_name = "FILE", allow_hyphen_values = true)]
    outfile: Option<PathBuf>,
    /// Trace the process
    #[arg(short = 'p', value_name = "PID", conflicts_with = "command")]
    pid: Option<i32>,
    /// Show the time since the line before
    #[arg(short = 'R')]
    relative: bool,
    /// Write the file of -o through to the disk
    #[arg(short = 's')]
    sync: bool,
    /// Show the time of day
    #[arg(short = 'T')]
    absolute: bool,
    /// What to trace: c calls, n paths, i data, s signals, u user, w switches, e emulation, a v f exec, A all,
    /// + the default set, - removes what follows
    #[arg(short = 't', value_name = "POINTS", allow_hyphen_values = true, action = ArgAction::Append)]
    points: Vec<String>,
    /// Version of the format of -o
    #[arg(short = 'v', value_name = "VERSION", default_value_t = record::VERSION,
        value_parser = clap::value_parser!(u8).range(0..=2))]
    version_out: u8,
    /// Print data in hex
    #[arg(short = 'x')]
    hex: bool,
    /// Print data in hex, in words of 1, 2, 4, 8 or 16 bytes
    #[arg(short = 'X', value_name = "SIZE", value_parser = word_size)]
    word: Option<usize>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    launch::intercept();
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("ktruss: {failure}");
            ExitCode::from(failure.status)
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let whom = match (cli.pid, cli.pgrp) {
        (Some(pid), _) => Some(Whom::Pid(pid)),
        (_, Some(pgrp)) => Some(Whom::Pgrp(pgrp)),
        _ => None,
    };
    let facs = Request::points(&cli.points)?;
    let chosen = (!cli.points.is_empty()).then_some(facs);
    if cli.clear_all || cli.clear {
        if cli.clear && whom.is_none() {
            return Err(Failure::new("-c needs -p or -g; -C clears everything"));
        }
        launch::clear(whom.as_ref(), chosen, cli.descend)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &cli.infile {
        let printer = Printer::new(dump::Options { facs: chosen, ..options(cli)? });
        return print_file(path, cli.follow, printer);
    }
    let whom = match whom {
        Some(whom) => whom,
        None if cli.command.is_empty() => return Err(Failure::new("a command, -p, -g or -f is needed")),
        None => Whom::Command(cli.command.clone()),
    };
    let request = Request {
        facs,
        inherit: cli.inherit,
        descend: cli.descend,
        never_wait: cli.never_wait,
        backend: cli.backend.clone(),
        fd: None,
        calls: cli.calls.clone(),
        seccomp: cli.seccomp_bpf,
    };
    let (session, followed) = match &cli.outfile {
        Some(path) => {
            let mut out = Records::to(path, cli.append, cli.sync, cli.version_out)?;
            let mut session = Session::start(&whom, &request)?;
            let followed = session.follow(|bytes| out.write(bytes));
            (session, followed)
        }
        None => {
            let mut printer = Printer::new(options(cli)?);
            let mut session = Session::start(&whom, &request)?;
            let followed = session.follow(|bytes| printer.print(bytes));
            let ended = printer.finish();
            (session, followed.and_then(|how| ended.map(|()| how)))
        }
    };
    let ended = followed.unwrap_or_else(|e| Ended::failed("ktruss", &e));
    session.finish(ended)
}

fn options(cli: &Cli) -> Result<dump::Options, Failure> {
    let emulation = match &cli.emulation {
        Some(name) => Emulation::by_name(name.as_bytes())
            .ok_or_else(|| Failure::new(format!("-e {name}: there is no such emulation")))?,
        None => dump::Options::default().emulation,
    };
    Ok(dump::Options {
        absolute: cli.absolute,
        elapsed: cli.elapsed,
        relative: cli.relative,
        max_data: cli.max_data,
        word: cli.word.or(cli.hex.then_some(1)),
        emulation,
        ..dump::Options::default()
    })
}

fn word_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size @ (1 | 2 | 4 | 8 | 16)) => Ok(size),
        _ => Err("must be 1, 2, 4, 8 or 16".to_owned()),
    }
}

/// Prints the records of a file to its end, or with -l for ever. What is good before a fault is printed.
fn print_file(path: &Path, follow: bool, mut printer: Printer) -> Result<ExitCode, Failure> {
    let failed = |e: &io::Error| Failure::new(format!("{}: {}", path.display(), ktrace::errno::words(e)));
    let mut input: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|e| failed(&e))?),
    };
    let mut bytes = vec![0; BUFFER];
    let printed = loop {
        match input.read(&mut bytes) {
            Ok(0) if follow => thread::sleep(FOLLOW),
            Ok(0) => break printer.finish(),
            Ok(n) => {
                if let Err(e) = printer.print(&bytes[..n]) {
                    break Err(e);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Err(e),
        }
    };
    match printed {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever reads our output has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(failed(&e)),
    }
}

/// Records to lines on standard output, all that a piece of the stream completes at once.
struct Printer {
    decoder: Decoder,
    truss: Truss,
    text: Vec<u8>,
}

impl Printer {
    fn new(options: dump::Options) -> Printer {
        Printer { decoder: Decoder::new(), truss: Truss::new(options), text: Vec::new() }
    }

    fn print(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.decoder.feed(bytes);
        let fault = loop {
            match self.decoder.next_record() {
                Ok(Some(record)) => self.truss.record(&record, &mut self.text),
                Ok(None) => break None,
                Err(e) => break Some(e),
            }
        };
        self.flush()?;
        fault.map_or(Ok(()), |e| Err(io::Error::other(e)))
    }

    /// The end of the stream: calls that never returned, and a record cut short.
    fn finish(&mut self) -> io::Result<()> {
        self.truss.finish(&mut self.text);
        self.flush()?;
        self.decoder.finish().map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&self.text).and_then(|()| stdout.flush());
        self.text.clear();
        written
    }
}
