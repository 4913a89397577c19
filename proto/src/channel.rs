//! Endpoints of agents, and connections to them tuned for blobs.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rustix::fs::{FileType, Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Uri};

use crate::wire::{
    CONNECTION_WINDOW, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MAX_HTTP2_FRAME, STREAM_WINDOW,
};

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Only the authority header is made of this; the endpoint knows where to go.
const AUTHORITY: &str = "http://longshore";

/// A connection's two directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Dial = dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Io>>> + Send + Sync;

/// Endpoint of an agent: `unix:///path/to/socket` or `http://host:port`.
#[derive(Clone)]
pub struct Endpoint {
    name: Arc<str>,
    dial: Arc<Dial>,
    is_within_host: bool,
}

/// A text that is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an endpoint: expected unix:///path/to/socket or http://host:port")]
pub struct InvalidEndpoint {
    /// The text that could not be parsed, cut to a length that is safe to print.
    pub text: String,
}

impl Endpoint {
    /// A Unix socket. Its last component is never followed as a link, so that a program that may
    /// write to the socket's folder cannot point us at another socket; the folder itself may be
    /// reached through links.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let name = format!("unix://{}", path.display());
        let dialled = Self::dialled(&name, move || {
            let path = path.clone();
            async move { Ok(Box::new(connect_unix(&path).await?) as Box<dyn Io>) }
        });
        Self { is_within_host: true, ..dialled }
    }

    /// An endpoint that is reached by calling `dial`: a pipe in a test, a tunnel. `name` says in
    /// messages where it leads.
    pub fn dialled<F, R>(name: &str, dial: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<Box<dyn Io>>> + Send + 'static,
    {
        let dial = Arc::new(move || Box::pin(dial()) as BoxFuture<'static, _>);
        Self { name: name.into(), dial, is_within_host: false }
    }

    /// True for endpoints on this host only: a Unix socket, or the loopback interface.
    pub(crate) fn is_within_host(&self) -> bool {
        self.is_within_host
    }

    fn tcp(authority: String, host: &str) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |ip: std::net::IpAddr| ip.to_canonical().is_loopback();
        let is_within_host = host == "localhost" || host.parse().is_ok_and(is_loopback);
        let dialled = Self::dialled(&format!("http://{authority}"), move || {
            let authority = authority.clone();
            async move {
                let stream = TcpStream::connect(&authority).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Io>)
            }
        });
        Self { is_within_host, ..dialled }
    }

    /// Connects when the first call is made, and again whenever the connection was lost.
    pub(crate) fn channel(&self) -> Channel {
        Channel::from_static(AUTHORITY)
            .connect_timeout(CONNECT_TIMEOUT)
            .max_frame_size(MAX_HTTP2_FRAME)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(dialler(&self.dial))
    }

    /// The same with no setting at all.
    #[cfg(any(test, feature = "fixture"))]
    pub(crate) fn plain_channel(&self) -> Channel {
        Channel::from_static(AUTHORITY).connect_with_connector_lazy(dialler(&self.dial))
    }
}

/// Opens the connections of a channel.
fn dialler(
    dial: &Arc<Dial>,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<Box<dyn Io>>,
    Error = io::Error,
    Future = impl Future<Output = io::Result<TokioIo<Box<dyn Io>>>> + Send,
> + Send
+ 'static {
    let dial = dial.clone();
    tower::service_fn(move |_: Uri| {
        let connection: Pin<Box<_>> = dial();
        async move { connection.await.map(TokioIo::new) }
    })
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let invalid = || InvalidEndpoint { text: text.chars().take(80).collect() };
        if let Some(path) = text.strip_prefix("unix://") {
            let is_file = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
            return if is_file { Ok(Self::unix(path)) } else { Err(invalid()) };
        }
        let authority = text.strip_prefix("http://").ok_or_else(invalid)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let parsed: http::uri::Authority = authority.parse().map_err(|_| invalid())?;
        let is_plain = parsed.port_u16().is_some() && !authority.contains('@');
        if is_plain && !parsed.host().is_empty() {
            Ok(Self::tcp(authority.into(), parsed.host()))
        } else {
            Err(invalid())
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.name)
    }
}

/// Connects to the very socket that was looked at: opened as a place without following a link, then
/// named by its descriptor, so that nothing can be put in its stead in between. As a by-product,
/// paths longer than a socket address holds work too.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket =
        rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let file_type = FileType::from_raw_mode(rustix::fs::fstat(&socket)?.st_mode);
    if file_type != FileType::Socket {
        let kind = if file_type == FileType::Symlink { "a link" } else { "not a socket" };
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {kind}")));
    }
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket_or_a_host_with_a_port() {
        for good in ["unix:///run/longshore/host.sock", "http://127.0.0.1:7070", "http://[::1]:1"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        assert_eq!("http://a:1/".parse::<Endpoint>().unwrap().to_string(), "http://a:1");
        let bad = [
            "",
            "unix://",
            "unix://relative",
            "unix:///folder/",
            "/run/a.sock",
            "http://",
            "http://a",
            "https://a:1",
            "http://a:b",
            "http://a:1/x",
            "http://u@a:1",
            "http://:1",
            "tcp://a:1",
            "unix:///a\0b",
        ];
        for text in bad {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn what_can_only_be_here_is_known_to_be() {
        for (text, here) in [
            ("unix:///run/host.sock", true),
            ("http://127.0.0.1:1", true),
            ("http://[::1]:1", true),
            ("http://localhost:1", true),
            ("http://172.17.0.1:1", false),
            ("http://host.example:1", false),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().is_within_host(), here, "{text}");
        }
    }

    #[tokio::test]
    async fn a_link_in_a_sockets_place_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, link, file) =
            (folder.path().join("a.sock"), folder.path().join("link"), folder.path().join("file"));
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        std::fs::write(&file, b"").unwrap();
        assert!(connect_unix(&socket).await.is_ok());
        assert!(connect_unix(&link).await.unwrap_err().to_string().contains("link"));
        assert!(connect_unix(&file).await.unwrap_err().to_string().contains("not a socket"));
        let absent = connect_unix(&folder.path().join("absent")).await.unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        // The folder may be reached through a link.
        let other = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(folder.path(), other.path().join("folder")).unwrap();
        assert!(connect_unix(&other.path().join("folder/a.sock")).await.is_ok());
    }

    #[tokio::test]
    async fn a_path_longer_than_a_socket_address_connects() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let short = folder.path().join("s");
        let _listener = tokio::net::UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, deep.join("s")).unwrap();
        assert!(connect_unix(&deep.join("s")).await.is_ok());
    }
}
