//! What systemd hears of a service of `Type=notify`: that it is up, how it stands, and that it lives.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The socket that a service manager listens at (`NOTIFY_SOCKET`).
pub(super) struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    /// So often it wants to hear that the process lives.
    watchdog: Option<Duration>,
    heard: Option<Instant>,
    status: String,
}

impl Notifier {
    /// The one that the environment names; `None` where no service manager listens.
    pub(super) fn from_environment() -> Option<Notifier> {
        let address = address_of(&env::var_os("NOTIFY_SOCKET")?).ok()?;
        let socket = UnixDatagram::unbound().ok()?;
        let watchdog = watchdog_of(env::var("WATCHDOG_USEC").ok(), env::var("WATCHDOG_PID").ok());
        Some(Notifier { socket, address, watchdog, heard: None, status: String::new() })
    }

    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// How it stands, where that is another thing than before.
    pub(super) fn status(&mut self, text: String) {
        if text != self.status {
            self.send(&format!("STATUS={text}"));
            self.status = text;
        }
    }

    /// The process lives: said twice in the time after which it would be taken for dead.
    pub(super) fn watch(&mut self, now: Instant) {
        let Some(every) = self.watchdog else { return };
        if self.heard.is_none_or(|heard| now.duration_since(heard) >= every) {
            self.heard = Some(now);
            self.send("WATCHDOG=1");
        }
    }

    /// Where no manager listens any more, nothing is lost.
    fn send(&self, message: &str) {
        let _ = self.socket.send_to_addr(message.as_bytes(), &self.address);
    }
}

/// A path, or behind an `@` a name in the abstract name space.
fn address_of(name: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    if name.as_bytes().starts_with(b"/") {
        SocketAddr::from_pathname(name)
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Half of the time after which the manager takes this process for dead; `None` where it waits for no sign of it.
fn watchdog_of(usec: Option<String>, pid: Option<String>) -> Option<Duration> {
    if pid.is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let usec: u64 = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_at_half_of_its_time_and_only_by_the_process_that_it_watches() {
        let some = |text: &str| Some(text.to_owned());
        let own = std::process::id().to_string();
        assert_eq!(watchdog_of(some("30000000"), None), Some(Duration::from_secs(15)));
        assert_eq!(watchdog_of(some("30000000"), Some(own)), Some(Duration::from_secs(15)));
        for (usec, pid) in [(None, None), (some("0"), None), (some("x"), None), (some("1"), some("0"))] {
            assert_eq!(watchdog_of(usec, pid), None);
        }
        assert!(address_of(OsStr::new("vsock:2:3")).is_err());
    }
}
