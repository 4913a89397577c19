//! Notifications for systemd, if it requests them: the agent is ready or ending.
//!
//! Protocol: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The agent serves.
pub(crate) const READY: &str = "READY=1";
/// The agent is ending.
pub(crate) const STOPPING: &str = "STOPPING=1";

/// Tells the service manager at `socket`, the value of `NOTIFY_SOCKET`; nothing to do where there
/// is none. That it cannot be told is logged: the agent serves all the same.
pub(crate) fn tell(socket: Option<&OsStr>, state: &str) {
    let Some(socket) = socket else { return };
    if let Err(error) = send(socket, state) {
        tracing::warn!(socket = %socket.display(), state, %error, "could not notify the service manager");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_hears_what_it_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify.sock");
        let manager = UnixDatagram::bind(&path).unwrap();
        tell(Some(path.as_os_str()), READY);
        let mut buffer = [0; 64];
        let size = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..size], b"READY=1");
        tell(None, STOPPING);
        tell(Some(folder.path().join("absent").as_os_str()), STOPPING);
    }
}
