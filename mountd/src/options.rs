//! What `-o` takes: our own words, and the generic ones that mount(8) passes to every helper.

use std::time::Duration;

use ktrace::policy::Policy;
use nix::mount::MsFlags;

/// Bytes of all rings together where `mem=` is not given.
const MEM_DEFAULT: usize = 256 << 20;
/// How long the records of a dead process stay readable where `linger=` is not given.
const LINGER_DEFAULT: Duration = Duration::from_secs(60);

/// Words of mount(8), fstab(5) and FUSE that ask for nothing here, with and without a value.
const IGNORED: [&str; 42] = [
    "rw",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "exec",
    "async",
    "sync",
    "dirsync",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "nousers",
    "group",
    "nogroup",
    "owner",
    "noowner",
    "defaults",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "mand",
    "nomand",
    "silent",
    "loud",
    "nofail",
    "_netdev",
    "comment",
    "fsname",
    "subtype",
    "default_permissions",
];

/// All options of a mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    /// `size=`: bytes of a ring, where it was said.
    pub(crate) size: Option<usize>,
    /// `mem=`: bytes of all rings together.
    pub(crate) mem: usize,
    /// `linger=`: seconds that the records of a dead process stay readable.
    pub(crate) linger: Duration,
    /// `policy=`.
    pub(crate) policy: Policy,
    /// `backend=`: `None` for auto.
    pub(crate) backend: Option<String>,
    /// `yama=ignore`.
    pub(crate) ignore_yama: bool,
    /// `allow_other`: needed only where we are not root.
    pub(crate) allow_other: bool,
    /// `ro` and `noexec`, where they were said.
    pub(crate) flags: MsFlags,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: None,
            mem: MEM_DEFAULT,
            linger: LINGER_DEFAULT,
            policy: Policy::default(),
            backend: None,
            ignore_yama: false,
            allow_other: false,
            flags: MsFlags::empty(),
        }
    }
}

impl Options {
    /// Reads lists as given to `-o`, in order; where words contradict each other the last one counts.
    ///
    /// # Errors
    /// What is wrong with which word.
    pub(crate) fn parse<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Options, String> {
        let mut options = Options::default();
        for word in lists.into_iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            options.take(word)?;
        }
        Ok(options)
    }

    fn take(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let wrong = || format!("option {word}: not a valid value of {name}=");
        match (name, value) {
            ("size", Some(v)) => {
                let size = bytes(v).ok_or_else(wrong)?;
                let (min, max) = (ktrace::sink::SIZE_MIN, ktrace::sink::SIZE_MAX);
                if !(min..=max).contains(&size) {
                    return Err(format!("option {word}: a ring has {min} to {max} bytes"));
                }
                self.size = Some(size);
            }
            ("mem", Some(v)) => self.mem = bytes(v).filter(|&n| n > 0).ok_or_else(wrong)?,
            ("linger", Some(v)) => {
                self.linger = v.parse::<u32>().map(|s| Duration::from_secs(s.into())).map_err(|_| wrong())?;
            }
            ("policy", Some(v)) => self.policy = v.parse().map_err(|()| wrong())?,
            ("backend", Some("auto")) => self.backend = None,
            ("backend", Some(v)) if !v.is_empty() => self.backend = Some(v.to_owned()),
            ("yama", Some("ignore")) => self.ignore_yama = true,
            ("yama", Some("respect")) => self.ignore_yama = false,
            ("backend" | "yama", Some(_)) => return Err(wrong()),
            ("size" | "mem" | "linger" | "policy" | "backend" | "yama", None) => {
                return Err(format!("option {name} needs a value"));
            }
            ("allow_other", None) => self.allow_other = true,
            ("ro", None) => self.flags.insert(MsFlags::MS_RDONLY),
            ("rw", None) => self.flags.remove(MsFlags::MS_RDONLY),
            ("noexec", None) => self.flags.insert(MsFlags::MS_NOEXEC),
            ("exec", None) => self.flags.remove(MsFlags::MS_NOEXEC),
            _ if name.starts_with("x-") || name.starts_with("X-") || IGNORED.contains(&name) => {}
            _ => return Err(format!("unknown option {word}")),
        }
        Ok(())
    }
}

/// A number of bytes with an optional K, M or G.
fn bytes(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mount_passes_by_itself_changes_nothing() {
        for list in
            ["rw,dev,suid", "rw,noexec,nosuid,nodev,user=root,dev,dev,exec", "", ",,", "x-systemd.automount"]
        {
            assert_eq!(Options::parse([list]), Ok(Options::default()), "{list}");
        }
    }

    #[test]
    fn every_own_word_is_heard() {
        let got = Options::parse([
            "size=1M,mem=64M,linger=5",
            "policy=drop,backend=ptrace,yama=ignore,allow_other,ro",
        ]);
        let want = Options {
            size: Some(1 << 20),
            mem: 64 << 20,
            linger: Duration::from_secs(5),
            policy: Policy::Drop,
            backend: Some("ptrace".to_owned()),
            ignore_yama: true,
            allow_other: true,
            flags: MsFlags::MS_RDONLY,
        };
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn the_last_word_counts() {
        let got = Options::parse([
            "ro,size=1M,policy=drop,backend=ptrace,yama=ignore",
            "rw,size=32K,policy=stop,backend=auto,yama=respect",
        ]);
        assert_eq!(got, Ok(Options { size: Some(32 << 10), ..Options::default() }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (list, word) in [
            ("size=1Q", "size=1Q"),
            ("size=-1", "size=-1"),
            ("size=1", "size=1"),
            ("size=99999999999999999999", "size=99999999999999999999"),
            ("size=99999999999999G", "size=99999999999999G"),
            ("size=", "size="),
            ("rw,mem=0", "mem=0"),
            ("linger=x", "linger=x"),
            ("policy=maybe", "policy=maybe"),
            ("backend=", "backend="),
            ("yama=perhaps", "yama=perhaps"),
            ("policy", "policy"),
            ("rw,nosuchword,dev", "nosuchword"),
            ("allow_other=1", "allow_other=1"),
        ] {
            let err = Options::parse([list]).expect_err(list);
            assert!(err.contains(word), "{list}: {err}");
        }
    }
}
