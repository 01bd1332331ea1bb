//! Where the daemon's messages go when it has no terminal: to /dev/log, which syslogd and journald read. Where nobody
//! does, they are lost; nothing ever waits for it.

use std::os::unix::net::UnixDatagram;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// `LOG_DAEMON` of syslog(3).
const DAEMON: u8 = 3 << 3;

struct Syslog {
    socket: UnixDatagram,
}

/// Sends the messages of this process there from now on, where there is a socket.
pub(crate) fn install(level: LevelFilter) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_ok() && log::set_boxed_logger(Box::new(Syslog { socket })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // fuser tells of every request it has no answer for.
        !metadata.target().starts_with("fuser") || metadata.level() == Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Addressed each time: a syslogd that was started anew has a new socket.
            let _ = self.socket.send_to(message(record).as_bytes(), "/dev/log");
        }
    }

    fn flush(&self) {}
}

fn message(record: &Record<'_>) -> String {
    let severity = match record.level() {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    format!("<{}>ktracefs[{}]: {}", DAEMON | severity, std::process::id(), record.args())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_facility_severity_and_name() {
        let record = Record::builder().level(Level::Warn).args(format_args!("EIO")).build();
        assert_eq!(message(&record), format!("<28>ktracefs[{}]: EIO", std::process::id()));
    }
}
