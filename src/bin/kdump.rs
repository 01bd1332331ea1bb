//! kdump(1): the text of a record stream.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use ktrace::dump::{Check, Emulation, Json, Options, Printer, Summary, print_parallel};
use ktrace::errno::words;
use ktrace::facility::Facs;
use ktrace::record::{Decoder, Record};

/// Where ktrace writes to by default.
const DEFAULT_FILE: &str = "ktrace.out";
/// How often `-l` looks for more.
const FOLLOW: Duration = Duration::from_millis(100);
/// Bytes read at once, at most: with what they are printed as they stay in a core's own cache.
const READ: usize = 64 << 10;
/// A file of more bytes is printed by several threads.
const PARALLEL_FROM: u64 = 4 << 20;

/// Prints the records of a ktrace stream: a trace file of the filesystem, or a file that ktrace wrote.
#[derive(Parser)]
#[command(name = "kdump", version, disable_help_flag = true)]
struct Cli {
    /// Show the emulation of each record's process
    #[arg(short = 'A')]
    abi: bool,
    /// Print numbers in decimal
    #[arg(short = 'd')]
    decimal: bool,
    /// Show the time since the first record
    #[arg(short = 'E')]
    elapsed: bool,
    /// Take processes without an EMUL record to be in this emulation
    #[arg(short = 'e', value_name = "EMULATION")]
    emulation: Option<String>,
    /// Read FILE, `-` for standard input
    #[arg(short = 'f', value_name = "FILE", conflicts_with = "input")]
    file: Option<PathBuf>,
    /// Show thread ids: they always are
    #[arg(short = 'H')]
    _threads: bool,
    /// At the end of the file, wait for more
    #[arg(short = 'l')]
    follow: bool,
    /// Show at most this many bytes of the data of a GIO record
    #[arg(short = 'm', value_name = "BYTES")]
    max_data: Option<String>,
    /// Print system calls as numbers
    #[arg(short = 'N', action = ArgAction::Count)]
    numeric: u8,
    /// Print arguments and errors as they are; twice: also the calls of RET as numbers
    #[arg(short = 'n', action = ArgAction::Count)]
    plain: u8,
    /// Show the records of this process or thread only
    #[arg(short = 'p', value_name = "PID", allow_hyphen_values = true)]
    pid: Option<String>,
    /// Show the time since the record before
    #[arg(short = 'R')]
    relative: bool,
    /// Show structures in full: no record here has one
    #[arg(short = 'r')]
    _structs: bool,
    /// Show the number of each system call beside its name
    #[arg(short = 'S')]
    codes: bool,
    /// Show no data of GIO records
    #[arg(short = 's')]
    no_data: bool,
    /// Show the time of day
    #[arg(short = 'T')]
    absolute: bool,
    /// Show these records only: letters of cnisuwaevfS, A for all, + for the default set, - to remove
    #[arg(short = 't', value_name = "POINTS", allow_hyphen_values = true)]
    points: Vec<String>,
    /// Show the USER records of this id only, as text
    #[arg(short = 'u', value_name = "LABEL")]
    label: Option<String>,
    /// Print data in hex, in words of 1, 2, 4, 8 or 16 bytes
    #[arg(short = 'X', value_name = "SIZE")]
    word: Option<String>,
    /// Print data in hex
    #[arg(short = 'x')]
    hex: bool,
    /// Print counts, errors and times by system call
    #[arg(short = 'c', long, conflicts_with_all = ["verify", "format"])]
    summary: bool,
    /// Say whether anything is missing from the stream
    #[arg(long, conflicts_with = "format")]
    verify: bool,
    /// How to print records
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The file to read; without one, standard input or ktrace.out
    #[arg(value_name = "FILE")]
    input: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        // Whoever reads our output has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("kdump: {}", words(&e));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> io::Result<ExitCode> {
    let options = options(cli).map_err(io::Error::other)?;
    let mut input = open(cli.file.as_deref().or(cli.input.as_deref()))?;
    let mut sink = match cli.format {
        _ if cli.verify => Sink::Check(Check::new(options.emulation)),
        _ if cli.summary => Sink::Summary(Summary::new(options)),
        Format::Text => Sink::Text(Printer::new(options)),
        Format::Json => Sink::Json(Json::new(options)),
    };
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get());
    let fault = match (&mut input, sink) {
        (Input::Large(file), Sink::Text(printer)) if threads > 1 && !cli.follow => {
            sink = Sink::Printed;
            print_parallel(|buf, at| file.read_at(buf, at), printer, threads, &mut io::stdout())?
        }
        (input, of) => {
            sink = of;
            copy(input.reader(), &mut sink, cli.follow)?
        }
    };
    if let Some(fault) = &fault {
        eprintln!("kdump: {fault}");
    }
    let mut text = Vec::new();
    let whole = match sink {
        Sink::Text(_) | Sink::Json(_) | Sink::Printed => true,
        Sink::Check(check) => check.finish(&mut text),
        Sink::Summary(summary) => {
            summary.finish(&mut text);
            true
        }
    };
    io::stdout().write_all(&text)?;
    io::stdout().flush()?;
    Ok(if whole && fault.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What becomes of records.
enum Sink {
    Text(Printer),
    /// Everything is printed.
    Printed,
    Json(Json),
    Check(Check),
    Summary(Summary),
}

impl Sink {
    fn record(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        match self {
            Sink::Text(printer) => printer.record(record, out),
            Sink::Printed => {}
            Sink::Json(json) => json.record(record, out),
            Sink::Check(check) => check.record(record, out),
            Sink::Summary(summary) => summary.record(record),
        }
    }
}

/// Prints what is read, after each read all that it completed: nothing is held back while the writer is quiet. Gives
/// what is wrong with the stream, after all that is good was printed.
fn copy(input: &mut dyn Read, sink: &mut Sink, follow: bool) -> io::Result<Option<String>> {
    let mut decoder = Decoder::new();
    let mut text = Vec::new();
    let mut stdout = io::stdout().lock();
    loop {
        let n = match input.read(decoder.room(READ)) {
            Ok(0) if follow => {
                thread::sleep(FOLLOW);
                continue;
            }
            Ok(0) => return Ok(decoder.finish().err().map(|e| e.to_string())),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Ok(Some(words(&e))),
        };
        decoder.came(n);
        text.clear();
        let fault = loop {
            match decoder.next_record() {
                Ok(Some(record)) => sink.record(&record, &mut text),
                Ok(None) => break None,
                Err(e) => break Some(e.to_string()),
            }
        };
        stdout.write_all(&text)?;
        stdout.flush()?;
        if fault.is_some() {
            return Ok(fault);
        }
    }
}

enum Input {
    /// A regular file of more than [`PARALLEL_FROM`] bytes, at its beginning.
    Large(File),
    Other(Box<dyn Read>),
}

impl Input {
    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Input::Large(file) => file,
            Input::Other(input) => input,
        }
    }
}

fn open(file: Option<&Path>) -> io::Result<Input> {
    let path = match file {
        Some(path) if path == Path::new("-") => return Ok(Input::Other(Box::new(io::stdin()))),
        Some(path) => path,
        None if !io::stdin().is_terminal() => return Ok(Input::Other(Box::new(io::stdin()))),
        None => Path::new(DEFAULT_FILE),
    };
    match File::open(path) {
        Ok(file) if file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > PARALLEL_FROM) => {
            Ok(Input::Large(file))
        }
        Ok(file) => Ok(Input::Other(Box::new(file))),
        Err(e) => Err(io::Error::other(format!("{}: {}", path.display(), words(&e)))),
    }
}

fn options(cli: &Cli) -> Result<Options, String> {
    let mut options = Options {
        decimal: cli.decimal,
        plain: cli.plain,
        numeric: cli.numeric > 0,
        codes: cli.codes,
        abi: cli.abi,
        absolute: cli.absolute,
        elapsed: cli.elapsed,
        relative: cli.relative,
        label: cli.label.as_ref().map(|label| label.as_bytes().to_vec()),
        ..Options::default()
    };
    if !cli.points.is_empty() {
        let mut facs = Facs::empty();
        for points in &cli.points {
            facs = facs.with_letters(points).map_err(|_| format!("unknown trace point in {points}"))?;
        }
        options.facs = Some(facs);
    }
    if let Some(pid) = &cli.pid {
        options.pid = Some(number(pid)?);
    }
    if let Some(max) = &cli.max_data {
        options.max_data = Some(number(max)?);
    }
    if cli.no_data {
        options.max_data = Some(0);
    }
    options.word = match cli.word.as_deref().map(number) {
        Some(Ok(word @ (1 | 2 | 4 | 8 | 16))) => Some(word),
        Some(_) => return Err("argument to -X must be 1, 2, 4, 8 or 16".into()),
        None => cli.hex.then_some(1),
    };
    if let Some(name) = &cli.emulation {
        match Emulation::by_name(name.as_bytes()) {
            Some(emulation) => options.emulation = emulation,
            None => eprintln!("kdump: Emulation `{name}' unknown"),
        }
    }
    if let Some((terminal_size::Width(columns), _)) = terminal_size::terminal_size_of(io::stderr())
        && cli.plain == 0
        && columns > 8
    {
        options.width = columns.into();
    }
    Ok(options)
}

/// A number as strtoul(3) reads it, with base 0: decimal, `0x` hex, `0` octal.
fn number<T: TryFrom<u64>>(word: &str) -> Result<T, String> {
    let (digits, base) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&word[2..], 16),
        [b'0', _, ..] => (&word[1..], 8),
        _ => (word, 10),
    };
    u64::from_str_radix(digits, base)
        .ok()
        .filter(|_| !digits.starts_with('+'))
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| format!("invalid number {word}"))
}
