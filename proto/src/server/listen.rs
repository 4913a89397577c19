//! Sockets that are bound before anything is served, so that their addresses are known.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::sockopt::{
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_send_buffer_size,
};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::origin::Reach;
use crate::channel::Io;
use crate::wire::{SEND_BUFFER, WIDE_CONNECTIONS};
use control::identity::Caller;

/// A bound socket. A Unix socket's file is removed with it, unless another took its place.
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
}

enum Kind {
    Unix { listener: UnixListener, file: SocketFile, wide: Arc<Semaphore> },
    Tcp(TcpListener),
}

struct SocketFile {
    path: PathBuf,
    /// Device and inode, to know our own file again.
    identity: (u64, u64),
}

/// A connection that came in.
pub(super) struct Accepted {
    pub(super) io: Box<dyn Io>,
    pub(super) reach: Reach,
    /// Its right to a large send buffer, until it ends.
    pub(super) wide: Option<OwnedSemaphorePermit>,
}

impl Listener {
    /// Listens on a Unix socket with these permissions (`0o600`), in place of what a dead process
    /// left there. The socket has its permissions before anybody can open it.
    ///
    /// # Errors
    /// `AddrInUse` when a living process listens there or the path is no socket; the system's own.
    pub fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        refuse_living(path)?;
        // Bound under a name of its own, and moved when it is ready: there is no moment at which
        // the socket is open to more than `mode` says, or absent.
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&fresh)?;
        let file = std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(mode))
            .and_then(|()| std::fs::rename(&fresh, path))
            .and_then(|()| std::fs::symlink_metadata(path));
        let metadata = file.inspect_err(|_| {
            let _already_failing = std::fs::remove_file(&fresh);
        })?;
        let identity = (metadata.dev(), metadata.ino());
        let file = SocketFile { path: path.to_owned(), identity };
        let wide = Arc::new(Semaphore::new(WIDE_CONNECTIONS));
        Ok(Self { kind: Kind::Unix { listener, file, wide } })
    }

    /// Listens on a TCP address; port 0 takes a free one.
    ///
    /// # Errors
    /// The system's own.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { kind: Kind::Tcp(TcpListener::bind(address).await?) })
    }

    /// Callers of this listener: the administrator's Unix socket admits everyone who may open it. A
    /// TCP address is open to everyone who can reach it, so its callers may only look.
    #[must_use]
    pub fn caller(&self) -> Caller {
        match self.kind {
            Kind::Unix { .. } => Caller::Admin,
            Kind::Tcp(_) => Caller::Inspector,
        }
    }

    /// The TCP address that is listened on, with its port; none for a Unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Unix { .. } => None,
            Kind::Tcp(listener) => listener.local_addr().ok(),
        }
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.kind {
            Kind::Unix { listener, wide, .. } => {
                let (stream, _) = listener.accept().await?;
                let wide = wide.clone().try_acquire_owned().ok();
                wide.iter().for_each(|_| widen(&stream));
                Ok(Accepted { io: Box::new(stream), reach: Reach::Host, wide })
            }
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let is_here = peer.ip().to_canonical().is_loopback();
                let reach = if is_here { Reach::Host } else { Reach::Network };
                Ok(Accepted { io: Box::new(stream), reach, wide: None })
            }
        }
    }
}

/// Lets a whole message into the socket at once, if it does not yet. The system's usual 208 KiB has
/// sender and receiver take turns several times for each. More than `net.core.wmem_max` is for who
/// may administer the network; the socket works with any.
fn widen(stream: &UnixStream) {
    if socket_send_buffer_size(stream).is_ok_and(|usual| usual < SEND_BUFFER) {
        let _as_it_was = set_socket_send_buffer_size_force(stream, SEND_BUFFER)
            .or_else(|_| set_socket_send_buffer_size(stream, SEND_BUFFER));
    }
}

/// Shown as the endpoint that a client takes.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Unix { file, .. } => write!(f, "unix://{}", file.path.display()),
            Kind::Tcp(_) => match self.tcp_address() {
                Some(address) => write!(f, "http://{address}"),
                None => f.write_str("http://unknown"),
            },
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { file, .. } => write!(f, "Unix({})", file.path.display()),
            Self::Tcp(listener) => fmt::Debug::fmt(listener, f),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if is_ours {
            // One that stays behind is replaced by the next listener.
            let _left = std::fs::remove_file(&self.path);
        }
    }
}

/// Only a socket that nobody listens on may be replaced.
fn refuse_living(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| {
        let message = format!("{what} at {}", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, message))
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => in_use("something else lies"),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => in_use("another process listens"),
            Err(_) => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::unix(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Listener::unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(!path.exists());
        std::fs::write(&path, b"precious").unwrap();
        assert_eq!(Listener::unix(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_unix_socket_takes_more_at_once_than_the_system_gives_it() {
        let (stream, _other) = UnixStream::pair().unwrap();
        let usual = socket_send_buffer_size(&stream).unwrap();
        widen(&stream);
        let wide = socket_send_buffer_size(&stream).unwrap();
        assert!(usual < wide || SEND_BUFFER <= usual, "{usual} bytes became {wide}");
    }

    #[tokio::test]
    async fn no_more_connections_are_wide_than_a_caller_reads_by() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = Listener::unix(&path, 0o600).unwrap();
        let mut accepted = Vec::new();
        for _ in 0..=WIDE_CONNECTIONS {
            let _client = UnixStream::connect(&path).await.unwrap();
            accepted.push(listener.accept().await.unwrap());
        }
        let wide = |accepted: &[Accepted]| accepted.iter().filter(|it| it.wide.is_some()).count();
        assert_eq!(wide(&accepted), WIDE_CONNECTIONS);
        accepted.clear();
        let _client = UnixStream::connect(&path).await.unwrap();
        accepted.push(listener.accept().await.unwrap());
        assert_eq!(wide(&accepted), 1, "a connection that ended makes room");
    }

    #[tokio::test]
    async fn a_listener_leaves_alone_what_took_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let listener = Listener::unix(&path, 0o600).unwrap();
        std::fs::remove_file(&path).unwrap();
        let _next = Listener::unix(&path, 0o666).unwrap();
        drop(listener);
        assert!(path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something was left");
    }
}
