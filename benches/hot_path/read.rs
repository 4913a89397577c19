//! A read over gRPC with both ends in this process, compared with the same bytes over a bare socket.
//!
//! Neither side verifies: the reads start at byte 1, as after a broken connection. `benches/wire.rs`
//! runs the two ends as separate processes and reports the resources of each.

use std::io;
use std::sync::Arc;

use benches::one_image::{OneImage, image_of};
use benches::wire::admin::NoAdmin;
use bytes::Bytes;
use control::lending::{AllImages, Terms};
use control::{Caller, Library};
use criterion::{Criterion, Throughput};
use proto::channel::Io;
use proto::client::Manners;
use proto::server::{Caps, HOST_SERVICES, Health, Listener, Server, Services};
use proto::{Endpoint, RemoteHost};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use transfer::store::Leases;
use transfer::{BlobSource as _, Image, ImageSource as _, LayerForm, MAX_FRAME};

use crate::{Frames, SIZE, descriptor_of, drained, runtime};

/// Capacity of the pipe in bytes, about that of a socket.
const PIPE: usize = 256 << 10;

/// The transport between the two ends.
#[derive(Clone, Copy, Debug)]
enum Over {
    Pipe,
    Unix,
    Tcp,
}

/// Reads over each transport, by gRPC and bare.
pub(crate) fn reading(criterion: &mut Criterion) {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let frames = Frames::noise();
    let digest = descriptor_of(&frames.0).digest;
    let image = image_of(digest, SIZE).expect("a config of one layer");
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(SIZE)).sample_size(20);
    for over in [Over::Pipe, Over::Unix, Over::Tcp] {
        let socket = folder.path().join(format!("{over:?}.sock"));
        let (blobs, _served) = runtime.block_on(async {
            let (endpoint, served) = serve(over, image.clone(), &frames, &socket).await;
            let host = RemoteHost::new(endpoint, Manners::default());
            let opened = host.open(&image.config_digest.into(), LayerForm::AsStored).await;
            (opened.expect("the host has its one image").blobs, served)
        });
        group.bench_function(format!("{over:?}, gRPC"), |bencher| {
            bencher.to_async(&runtime).iter(|| async {
                let stream = blobs.open(&digest, 1).await?;
                drained(stream).await
            });
        });
        let bare = folder.path().join(format!("{over:?}-bare.sock"));
        group.bench_function(format!("{over:?}, bare"), |bencher| {
            bencher.to_async(&runtime).iter(|| moved_bare(over, &frames.0, &bare));
        });
    }
    group.finish();
}

/// Serves `frames`, the only layer of `image`, through a host agent's data path. Dropping the guard
/// ends it.
async fn serve(
    over: Over,
    image: Image,
    frames: &Frames,
    socket: &std::path::Path,
) -> (Endpoint, DropGuard) {
    let images = OneImage { image, blobs: Arc::new(frames.clone()) };
    let leases = Leases::default();
    let library = Library::new(Arc::new(images), Arc::new(AllImages), leases, Terms::default());
    let health = Health::not_serving(&HOST_SERVICES).await;
    health.set(true).await;
    let caller = Caller::Range("bench".parse().expect("a name"));
    let services =
        Services::of_host(caller, Arc::new(library), Arc::new(NoAdmin), Arc::new(NoAdmin), &health);
    let (server, endpoint) = match over {
        Over::Pipe => {
            let (pipes, incoming) = mpsc::channel::<Box<dyn Io>>(1);
            let endpoint = Endpoint::dialled("pipe", move || dial(pipes.clone()));
            (Server::on_pipes(incoming, services, Caps::default()), endpoint)
        }
        Over::Unix => {
            let listener = Listener::unix(socket, 0o600).expect("a fresh folder takes a socket");
            let endpoint = Endpoint::unix(socket);
            (Server::new(listener, services, Caps::default()), endpoint)
        }
        Over::Tcp => {
            let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.expect("a free port");
            let endpoint = listener.to_string().parse().expect("a listener's address is one");
            (Server::new(listener, services, Caps::default()), endpoint)
        }
    };
    let end = CancellationToken::new();
    tokio::spawn(server.run(end.clone()));
    (endpoint, end.drop_guard())
}

async fn dial(pipes: mpsc::Sender<Box<dyn Io>>) -> io::Result<Box<dyn Io>> {
    let (near, far) = duplex(PIPE);
    let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
    pipes.send(Box::new(far)).await.map_err(refused)?;
    Ok(Box::new(near))
}

/// Moves the same bytes without gRPC. Like the gRPC read, this includes the connection.
async fn moved_bare(over: Over, frames: &[Bytes], socket: &std::path::Path) -> io::Result<usize> {
    match over {
        Over::Pipe => {
            let (near, far) = duplex(PIPE);
            moved(far, near, frames).await
        }
        Over::Unix => {
            drop(std::fs::remove_file(socket));
            let listener = UnixListener::bind(socket)?;
            let (near, far) = tokio::try_join!(UnixStream::connect(socket), listener.accept())?;
            moved(far.0, near, frames).await
        }
        Over::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let (near, far) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
            moved(far.0, near, frames).await
        }
    }
}

async fn moved(
    mut from: impl Io + 'static,
    mut to: impl Io,
    frames: &[Bytes],
) -> io::Result<usize> {
    let frames = frames.to_vec();
    let sender = tokio::spawn(async move {
        for frame in &frames {
            from.write_all(frame).await?;
        }
        from.shutdown().await
    });
    let mut buffer = vec![0; MAX_FRAME];
    let mut seen = 0;
    loop {
        match to.read(&mut buffer).await? {
            0 => break,
            len => seen += len,
        }
    }
    sender.await.map_err(io::Error::other)??;
    Ok(seen)
}
