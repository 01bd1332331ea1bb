//! Credentials, and who may trace whom (R33; docs/ktracefs.md, "Who may").

/// Who asks: the credentials of the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// File system uid.
    pub uid: u32,
    /// File system gid.
    pub gid: u32,
    /// The thread that asks, as the daemon numbers it; 0 where it cannot be seen.
    pub tid: i32,
}
