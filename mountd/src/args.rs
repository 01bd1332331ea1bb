//! The command line: our own, and that of a helper of mount(8).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::options::Options;

/// The name under which mount(8) looks for us: a link to the daemon.
const HELPER: &str = "mount.ktracefs";
/// The source of a mount where none is given.
const SOURCE: &str = "ktracefs";

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Args {
    /// Shown as the source of the mount.
    pub(crate) source: String,
    /// Where.
    pub(crate) mountpoint: PathBuf,
    /// How.
    pub(crate) options: Options,
    /// The options as they were given, for the daemon that is started.
    pub(crate) lists: Vec<String>,
    /// Stay in front.
    pub(crate) foreground: bool,
    /// Say on standard output when the mount is there, then let go of the terminal.
    pub(crate) ready: bool,
    /// mount(8) was told to pretend.
    pub(crate) fake: bool,
}

#[derive(Parser)]
#[command(
    name = "ktracefs",
    version,
    about = "Mounts ktrace as a filesystem: every process has a directory with its trace"
)]
struct Daemon {
    /// Shown as the source of the mount; it means nothing
    #[arg(value_name = "SOURCE")]
    first: String,
    /// Where to mount
    #[arg(value_name = "MOUNTPOINT")]
    second: Option<PathBuf>,
    /// Options, comma separated: size= mem= linger= policy= backend= yama= allow_other
    #[arg(short = 'o', value_name = "OPT,...")]
    options: Vec<String>,
    /// Stay in front, and log to standard error
    #[arg(short = 'f')]
    foreground: bool,
    #[arg(long, hide = true)]
    ready: bool,
}

/// What mount(8) passes to a helper ("External helpers" in its manual).
#[derive(Parser)]
#[command(name = HELPER, disable_version_flag = true)]
struct Helper {
    source: String,
    mountpoint: PathBuf,
    #[arg(short = 'o', value_name = "OPT,...")]
    options: Vec<String>,
    /// Pretend
    #[arg(short = 'f')]
    fake: bool,
    /// Tolerate unknown options
    #[arg(short = 's')]
    sloppy: bool,
    /// Do not write mtab; there is none
    #[arg(short = 'n')]
    _no_mtab: bool,
    /// Be verbose
    #[arg(short = 'v')]
    _verbose: bool,
    /// Mount namespace, into which mount(8) has gone already
    #[arg(short = 'N', value_name = "NS")]
    _namespace: Option<String>,
    /// Type, with its subtype
    #[arg(short = 't', value_name = "TYPE")]
    _kind: Option<String>,
}

impl Args {
    /// Reads the command line, the name of the program first.
    ///
    /// # Errors
    /// clap's: a usage message, or the answer to --help.
    pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Args, clap::Error> {
        let argv: Vec<OsString> = argv.into_iter().collect();
        let name = argv.first().and_then(|name| Path::new(name).file_name());
        match name.is_some_and(|name| name == HELPER) {
            true => Helper::try_parse_from(&argv).and_then(Args::of_helper),
            false => Daemon::try_parse_from(&argv).and_then(Args::of_daemon),
        }
    }

    fn of_daemon(given: Daemon) -> Result<Args, clap::Error> {
        let (source, mountpoint) = match given.second {
            Some(second) => (given.first, second),
            None => (SOURCE.to_owned(), PathBuf::from(given.first)),
        };
        Ok(Args {
            source,
            mountpoint,
            options: options(&given.options)?,
            lists: given.options,
            foreground: given.foreground,
            ready: given.ready,
            fake: false,
        })
    }

    fn of_helper(given: Helper) -> Result<Args, clap::Error> {
        let mut lists = given.options;
        if given.sloppy {
            let words = lists.iter().flat_map(|list| list.split(','));
            lists = words.filter(|word| Options::parse([*word]).is_ok()).map(str::to_owned).collect();
        }
        Ok(Args {
            source: given.source,
            mountpoint: given.mountpoint,
            options: options(&lists)?,
            lists,
            foreground: false,
            ready: false,
            fake: given.fake,
        })
    }
}

fn options(lists: &[String]) -> Result<Options, clap::Error> {
    Options::parse(lists.iter().map(String::as_str))
        .map_err(|what| clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{what}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(argv: &[&str]) -> Result<Args, String> {
        Args::parse(argv.iter().map(OsString::from)).map_err(|err| err.to_string())
    }

    #[test]
    fn a_mount_point_is_enough() {
        let args = parse(&["ktracefs", "/ktrace"]).expect("valid");
        assert_eq!((args.source.as_str(), args.mountpoint.to_str()), ("ktracefs", Some("/ktrace")));
        assert!(!args.foreground);
        assert!(parse(&["/usr/bin/ktracefs", "-f", "/ktrace"]).expect("valid").foreground);
        assert!(parse(&["ktracefs"]).is_err());
    }

    #[test]
    fn what_mount_of_fuse3_runs_is_understood() {
        let args =
            parse(&["ktracefs", "/ktrace", "-o", "rw,dev,suid"]).expect("mount -t fuse ktracefs /ktrace");
        assert_eq!(args.source, "ktracefs");
        let args = parse(&["ktracefs", "none", "/ktrace", "-o", "rw,nosuid,noexec,user=root,dev,size=1M"])
            .expect("valid");
        assert_eq!((args.source.as_str(), args.mountpoint.to_str()), ("none", Some("/ktrace")));
        assert_eq!(args.options.size, Some(1 << 20));
    }

    #[test]
    fn as_a_helper_of_mount_f_is_to_pretend() {
        let args =
            parse(&["/sbin/mount.ktracefs", "none", "/ktrace", "-sfnv", "-N", "7", "-o", "rw,nosuchword"]);
        let args = args.expect("valid");
        assert!(args.fake && !args.foreground);
        assert_eq!(args.lists, ["rw"], "sloppy drops what it does not know");
        assert!(parse(&["/sbin/mount.ktracefs", "none", "/ktrace", "-o", "nosuchword"]).is_err());
    }

    #[test]
    fn a_wrong_option_is_named() {
        let err = parse(&["ktracefs", "/ktrace", "-o", "size=big"]).expect_err("no number");
        assert!(err.contains("size=big"), "{err}");
    }
}
