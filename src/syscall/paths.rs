//! Where the paths of a call are: most are arguments, some stand behind one.

use super::{Arg, Data, Dir, Syscall};

/// `FSCONFIG_SET_PATH` and `FSCONFIG_SET_PATH_EMPTY` of the kernel's uapi/linux/mount.h.
const FSCONFIG_SET_PATH: [u32; 2] = [3, 4];
/// `Q_QUOTAON` of the kernel's uapi/linux/quota.h; a command is shifted by `SUBCMDSHIFT`.
const Q_QUOTAON: u32 = 0x80_0002;
const SUBCMDSHIFT: u32 = 8;
/// `BPF_OBJ_PIN` and `BPF_OBJ_GET` of the kernel's uapi/linux/bpf.h: a pointer to the path begins the attributes.
const BPF_OBJ: [u32; 2] = [6, 7];

/// Where the path is, if there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A string at this address.
    String(u64),
    /// A string; its address is in the 8 bytes at this one.
    Pointer(u64),
    /// A `struct sockaddr`.
    Sockaddr {
        /// Its address.
        addr: u64,
        /// Its length.
        len: u64,
    },
    /// The name in a `struct msghdr` at this address.
    Msg(u64),
    /// The names in an array of `struct mmsghdr`.
    Mmsg {
        /// Its address.
        addr: u64,
        /// How many.
        count: u64,
    },
}

impl Syscall {
    /// True where it is given a path by some of its arguments.
    pub fn may_take_path(&self) -> bool {
        let by_argument = self.args.iter().any(|kind| matches!(kind, Arg::Path | Arg::Sockaddr));
        by_argument
            || self.receiver(&[0; 6]).is_some()
            || matches!(self.name, "bpf" | "fsconfig" | "quotactl")
    }

    /// The paths that this call is given in these arguments, in their order.
    pub fn paths<'a>(&'a self, args: &'a [u64; 6]) -> impl Iterator<Item = Place> + 'a {
        let arguments = self.args.iter().zip(args).enumerate().filter_map(|(i, (kind, &addr))| match kind {
            Arg::Path => Some(Place::String(addr)),
            Arg::Sockaddr => Some(Place::Sockaddr { addr, len: args.get(i + 1).copied().unwrap_or(0) }),
            _ => None,
        });
        arguments.chain(self.receiver(args)).chain(self.commanded(args))
    }

    /// Messages are sent to whom their headers name.
    fn receiver(&self, args: &[u64; 6]) -> Option<Place> {
        let io = self.io.filter(|io| io.dir == Dir::Write)?;
        match io.data {
            Data::Msg { ptr } => Some(Place::Msg(args[usize::from(ptr)])),
            Data::Mmsg { ptr, count } => {
                Some(Place::Mmsg { addr: args[usize::from(ptr)], count: args[usize::from(count)] })
            }
            _ => None,
        }
    }

    /// An argument that is a path for some commands only.
    fn commanded(&self, args: &[u64; 6]) -> Option<Place> {
        match self.name {
            "bpf" if BPF_OBJ.contains(&(args[0] as u32)) => Some(Place::Pointer(args[1])),
            "fsconfig" if FSCONFIG_SET_PATH.contains(&(args[1] as u32)) => Some(Place::String(args[3])),
            "quotactl" if args[0] as u32 >> SUBCMDSHIFT == Q_QUOTAON => Some(Place::String(args[3])),
            _ => None,
        }
    }
}
