//! ktracefs(8), the daemon: joins a tracing backend to a FUSE filesystem.
//!
//! Names become files here, and requests calls of the library; what is traced, and who may, is decided there.
//!
//! | module | what is there |
//! |---|---|
//! | [`args`] [`options`] | the command line |
//! | [`daemon`] [`serve`] [`mount`] [`syslog`] | the life of the mount |
//! | [`channel`] [`wire`] | /dev/fuse: who answers what |
//! | [`files`] [`work`] | lookups, attributes, opens and writes |
//! | [`parked`] [`pump`] [`text`] | open stream files, and who waits for them |
//! | [`fuse`] | the rest, by fuser, translated |
//! | [`fs`] [`inode`] [`stat`] [`error_log`] | the tree, with no type of fuser's |

#![forbid(unsafe_code)]

mod args;
mod channel;
mod daemon;
mod error_log;
mod files;
mod fs;
mod fuse;
mod inode;
mod mount;
mod options;
mod parked;
mod pump;
mod serve;
mod stat;
mod syslog;
mod text;
mod wire;
mod work;

use std::process::ExitCode;

use log::LevelFilter;

use args::Args;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(err) => err.exit(),
    };
    if args.fake {
        return ExitCode::SUCCESS;
    }
    if !args.foreground {
        return daemon::start(&args).unwrap_or_else(|err| fail(&err.to_string()));
    }
    if args.ready {
        daemon::begin();
        syslog::install(LevelFilter::Info);
    } else {
        env_logger::Builder::new()
            .filter_level(LevelFilter::Info)
            .filter_module("fuser", LevelFilter::Error)
            .parse_default_env()
            .init();
    }
    match serve::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => fail(&what),
    }
}

fn fail(what: &str) -> ExitCode {
    eprintln!("ktracefs: {what}");
    ExitCode::FAILURE
}
