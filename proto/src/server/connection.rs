//! One connection: counted while it lives, given little time to begin, and ended on demand.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::capacity::Place;
use super::listen::Accepted;
use super::origin::Origin;
use crate::channel::Io;

/// Maximum time until a connection shows that it speaks HTTP/2. From then on keepalive finds out
/// whether it still lives; before, nothing else would.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the other end to read the last data and close.
const LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a client's preface and the header of its first frame.
const BEGINNING: usize = 24 + 9;

/// A connection with its place among the others.
pub(super) struct Connection {
    io: Box<dyn Io>,
    origin: Origin,
    _place: Place,
    _wide: Option<OwnedSemaphorePermit>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Bytes seen of the beginning, and the time it has; none once it is complete.
    beginning: Option<(usize, Pin<Box<Sleep>>)>,
    /// Time left for the other end to read the queue, once nothing more is added.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    /// Lives until it ends by itself, or is ended as one of all by `end_all`.
    pub(super) fn new(accepted: Accepted, place: Place, end_all: &CancellationToken) -> Self {
        let Accepted { io, reach, wide } = accepted;
        let end = end_all.child_token();
        Self {
            io,
            ended: Box::pin(end.clone().cancelled_owned()),
            origin: Origin { reach, end },
            _place: place,
            _wide: wide,
            beginning: Some((0, Box::pin(sleep(BEGIN_TIMEOUT)))),
            lingering: None,
        }
    }
}

/// The caller is known from the listener, not from the connection.
impl Connected for Connection {
    type ConnectInfo = Origin;

    fn connect_info(&self) -> Origin {
        self.origin.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A connection always waits for something to read, so this is where both timers are heard.
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if let Some((_, time)) = &mut self.beginning
            && time.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        if let Some((seen, _)) = &mut self.beginning {
            *seen += read;
            if BEGINNING <= *seen {
                self.beginning = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, buffer)
    }

    // Passed on, or a frame's header and payload would be two system calls.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    // If the socket closed while the other end still reads the queue, that end's next write would
    // fail, and the queue would be lost. So our direction ends first, and we wait for theirs.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, ended, lingering, .. } = &mut *self;
        let time = match lingering {
            Some(time) => time,
            None => {
                ready!(Pin::new(&mut *io).poll_shutdown(context))?;
                lingering.insert(Box::pin(sleep(LINGER_TIMEOUT)))
            }
        };
        if ended.as_mut().poll(context).is_ready() || time.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        loop {
            let mut discarded = [0; 1024];
            let mut buffer = ReadBuf::new(&mut discarded);
            let read = ready!(Pin::new(&mut *io).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;

    use super::*;
    use crate::server::Connections;
    use crate::server::origin::Reach;

    fn connection(end: &CancellationToken) -> (Connection, tokio::io::DuplexStream) {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (near, far) = tokio::io::duplex(64);
        let place = Connections::default().opened(permit);
        (
            {
                let accepted = Accepted { io: Box::new(near), reach: Reach::Host, wide: None };
                Connection::new(accepted, place, end)
            },
            far,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_begin_is_ended() {
        for beginning in [0, 1, BEGINNING - 1] {
            let (mut connection, mut far) = connection(&CancellationToken::new());
            far.write_all(&vec![0; beginning]).await.unwrap();
            let error = connection.read_to_end(&mut Vec::new()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "after {beginning} bytes");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_began_may_be_silent() {
        let (mut connection, mut far) = connection(&CancellationToken::new());
        far.write_all(&[0; BEGINNING]).await.unwrap();
        connection.read_exact(&mut [0; BEGINNING]).await.unwrap();
        let waiting = tokio::time::timeout(BEGIN_TIMEOUT * 100, connection.read_u8());
        assert!(waiting.await.is_err(), "it was ended");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_waits_until_the_other_end_has_closed_or_had_its_time() {
        for closes in [true, false] {
            let (mut connection, mut far) = connection(&CancellationToken::new());
            connection.write_all(b"last").await.unwrap();
            let begun = tokio::time::Instant::now();
            let reader = async {
                tokio::time::sleep(LINGER_TIMEOUT / 2).await;
                let mut seen = Vec::new();
                far.read_to_end(&mut seen).await.unwrap();
                // A closed socket would refuse this write.
                far.write_all(b"a window").await.unwrap();
                if closes {
                    drop(far);
                } else {
                    tokio::time::sleep(LINGER_TIMEOUT).await;
                }
                seen
            };
            let (ended, seen) = tokio::join!(connection.shutdown(), reader);
            ended.unwrap();
            assert_eq!(seen, b"last");
            assert_eq!(begun.elapsed() < LINGER_TIMEOUT, closes);
        }
    }

    #[tokio::test]
    async fn a_connection_ends_when_it_is_told_to_alone_or_with_all() {
        for alone in [true, false] {
            let all = CancellationToken::new();
            let (mut connection, _far) = connection(&all);
            let end = if alone { connection.connect_info().end } else { all.clone() };
            let (read, ()) = tokio::join!(connection.read_u8(), async { end.cancel() });
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
            assert_eq!(all.is_cancelled(), !alone, "the others");
        }
    }
}
