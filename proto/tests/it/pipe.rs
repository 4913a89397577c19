//! A server and its client in one process: pipes of any size, which can be cut at any byte.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use control::admin::{
    AdminError, HostStats, NewRange, Pruned, Pruning, RangeChange, RangeWants, ServedRange,
    StoreCheck, StoreStats,
};
use control::lending::{AllImages, Terms};
use control::link::{
    AgentStatus, Attachment, FromRange, FromRangeStream, ImageState, ImageStatus, LinkEnd,
    LinkHost, RangeState, Task, TaskEvent, ToRange, ToRangeStream, WantedBy,
};
use control::range::{ImageCheck, ImagePlan, Reach, VerifyEvent};
use control::transfers::{Transfer, TransferId, TransferKind};
use control::{Access, Caller, HostAdmin, Library, Pattern, RangeName, WantedSet};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use proto::channel::Io;
use proto::client::Manners;
use proto::server::{Caps, HOST_SERVICES, Health, Server, Services};
use proto::{Endpoint, RemoteHost};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use transfer::fixture::{MemorySource, descriptor_of};
use transfer::store::Leases;
use transfer::{
    BlobError, BlobSource, BlobStream, ConfigDigest, DiffId, Digest, EngineImageId, EngineInfo,
    Image, ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage, Reference, SourceError,
    Stage, StoreKind,
};

/// A pipe that splits even the headers of frames.
pub(crate) const NARROW: usize = 64;

/// A pipe that no power of two fits into.
pub(crate) const ODD: usize = 8191;

/// A pipe for tests that move a lot.
pub(crate) const LARGE: usize = 256 * 1024;

/// No cut.
pub(crate) const WHOLE: u64 = u64::MAX;

/// A client's end; reading fails for good once so many bytes were read, and takes its time.
struct Cut {
    io: DuplexStream,
    left: u64,
    /// Counts bytes read, of all connections.
    moved: Arc<AtomicU64>,
    /// Time for each byte.
    per_byte: Duration,
    /// Until the last ones have arrived.
    arriving: Pin<Box<Sleep>>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !self.per_byte.is_zero() {
            std::task::ready!(self.arriving.as_mut().poll(context));
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.remaining());
        let mut part = vec![0; most];
        let mut part = ReadBuf::new(&mut part);
        std::task::ready!(Pin::new(&mut self.io).poll_read(context, &mut part))?;
        buffer.put_slice(part.filled());
        let read = part.filled().len();
        self.left -= read as u64;
        self.moved.fetch_add(read as u64, Ordering::Relaxed);
        let taken = self.per_byte * u32::try_from(read).unwrap();
        self.arriving.as_mut().reset(Instant::now() + taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// A server on pipes: stopped when dropped, and started anew as often as a test likes.
pub(crate) struct Served {
    pipes: Arc<Mutex<mpsc::Sender<Box<dyn Io>>>>,
    cuts: Arc<Mutex<Vec<u64>>>,
    dials: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
    per_byte: Duration,
    size: usize,
    _server: AbortOnDropHandle<()>,
}

fn start(services: Services) -> (mpsc::Sender<Box<dyn Io>>, AbortOnDropHandle<()>) {
    let (sender, receiver) = mpsc::channel(4);
    let server = Server::on_pipes(receiver, services, Caps::default());
    let running = tokio::spawn(async move {
        server.run(CancellationToken::new()).await.unwrap();
    });
    (sender, AbortOnDropHandle::new(running))
}

impl Served {
    pub(crate) fn new(services: Services, size: usize) -> Self {
        let (sender, server) = start(services);
        Self {
            pipes: Arc::new(Mutex::new(sender)),
            cuts: Arc::default(),
            dials: Arc::default(),
            moved: Arc::default(),
            per_byte: Duration::ZERO,
            size,
            _server: server,
        }
    }

    /// The connections to come break after so many bytes, the next one first; all later ones hold.
    pub(crate) fn cut(&self, after: &[u64]) {
        *self.cuts.lock().unwrap() = after.iter().rev().copied().collect();
    }

    /// The same over a link on which each byte takes so long.
    pub(crate) fn slow(self, per_byte: Duration) -> Self {
        Self { per_byte, ..self }
    }

    /// Total bytes that clients read.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Number of connections made.
    pub(crate) fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }

    /// Ends the server with all its connections, and starts another in its place.
    pub(crate) fn restart(&mut self, services: Services) {
        let (sender, server) = start(services);
        *self.pipes.lock().unwrap() = sender;
        self._server = server;
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        let (pipes, cuts, dials, size) =
            (self.pipes.clone(), self.cuts.clone(), self.dials.clone(), self.size);
        let (moved, per_byte) = (self.moved.clone(), self.per_byte);
        Endpoint::dialled("pipe", move || {
            dials.fetch_add(1, Ordering::Relaxed);
            let (near, far) = duplex(size);
            let left = cuts.lock().unwrap().pop().unwrap_or(WHOLE);
            let (pipes, moved) = (pipes.lock().unwrap().clone(), moved.clone());
            async move {
                let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
                pipes.send(Box::new(far)).await.map_err(refused)?;
                let arriving = Box::pin(sleep(Duration::ZERO));
                Ok(Box::new(Cut { io: near, left, moved, per_byte, arriving }) as Box<dyn Io>)
            }
        })
    }
}

/// One connection for blobs, and a second of patience.
pub(crate) fn manners() -> Manners {
    Manners { connections: 1, patience: Duration::from_secs(5), ..Manners::default() }
}

pub(crate) fn range(name: &str) -> Caller {
    Caller::Range(name.parse().unwrap())
}

/// Notes where every stream of a blob began.
#[derive(Clone, Default)]
pub(crate) struct Noted {
    pub(crate) source: MemorySource,
    pub(crate) opened: Arc<Mutex<Vec<(Digest, u64)>>>,
}

#[async_trait]
impl ImageSource for Noted {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.source.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.source.resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let noted = |blobs| Arc::new(NotedBlobs { blobs, opened: self.opened.clone() }) as _;
        Ok(self.source.open(key, form).await?.through(noted))
    }
}

struct NotedBlobs {
    blobs: Arc<dyn BlobSource>,
    opened: Arc<Mutex<Vec<(Digest, u64)>>>,
}

#[async_trait]
impl BlobSource for NotedBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.blobs.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.opened.lock().unwrap().push((*digest, offset));
        self.blobs.open(digest, offset).await
    }
}

/// The wanted images of [`Idle`]'s one range.
pub(crate) fn wanted() -> Vec<Reference> {
    ["python:3", "localhost:5000/team/app:1"].map(|name| name.parse().unwrap()).into()
}

/// The transfers under way of [`Idle`]: more than a page, of both kinds.
pub(crate) fn moving() -> Vec<Transfer> {
    let digest = Digest::of(b"blob");
    let reads = (0..210).map(|serial| Transfer {
        id: TransferId::Read(serial),
        started: UNIX_EPOCH + Duration::from_millis(1_500 + serial),
        bytes: serial,
        kind: TransferKind::Read {
            caller: "range/lab-1".into(),
            config_digest: ConfigDigest(digest),
            digest,
            size: 1 << 40,
            offset: 5 + serial,
        },
    });
    let ingests = [None, Some(digest)].into_iter().zip(3..).map(|(digest, serial)| Transfer {
        id: TransferId::Ingest(serial),
        started: UNIX_EPOCH,
        bytes: 9,
        kind: TransferKind::Ingest { digest, size: digest.map(|_| 10) },
    });
    reads.chain(ingests).collect()
}

/// A range whose report has an image in every state.
pub(crate) fn busy_range(number: u32) -> ServedRange {
    let failed = ImageState::Failed { error: "the engine refused it".into(), is_permanent: true };
    let states = [
        ImageState::Pending,
        ImageState::OnItsWay(Stage::Load),
        ImageState::Present,
        ImageState::Gone,
        ImageState::Replaced,
        failed,
    ];
    let wanted_by = [WantedBy::Host, WantedBy::Agent, WantedBy::Nobody].into_iter().cycle();
    let images = states.into_iter().zip(wanted_by).enumerate().map(|(n, (state, wanted_by))| {
        let reference: Reference = format!("team/app:{n}").parse().unwrap();
        let image = ImageStatus {
            state,
            bytes_to_move: 1,
            bytes_moved: 2,
            bytes_saved: 3,
            config_digest: Some(ConfigDigest(Digest::of(b"config"))),
            target_digest: Some(Digest::of(b"index")),
            engine_image_id: Some(EngineImageId(Digest::of(b"image"))),
            looked_round: Some(70),
            loaded_round: (n % 2 == 0).then_some(70),
            stages: vec![(Stage::Resolve, 0.25), (Stage::Load, 1.5)],
            ..ImageStatus::pending(reference.clone(), wanted_by)
        };
        (reference, image)
    });
    let last_seen = UNIX_EPOCH + Duration::from_millis(2_500);
    ServedRange {
        name: format!("lab-{number}").parse().unwrap(),
        socket_path: "/run/host.sock".into(),
        connections: number,
        tcp_endpoint: None,
        wanted: WantedSet { references: wanted(), revision: 7, round: 70 },
        grants: vec!["team/*".parse().unwrap()],
        attachment: match number {
            0 => Attachment::Never,
            1 => Attachment::Attached { since: UNIX_EPOCH, last_seen },
            _ => Attachment::Detached { last_seen },
        },
        state: (number != 0).then(|| RangeState { agent: agent(), images: images.collect() }),
    }
}

/// An agent whose engine answers.
pub(crate) fn agent() -> AgentStatus {
    AgentStatus {
        version: "1.2.3".into(),
        uptime: Duration::from_secs(9),
        engine: Reach::Up(EngineInfo {
            engine: "docker 28.5.2".into(),
            store: StoreKind::Containerd,
            driver: "overlayfs".into(),
            id: "abc".into(),
        }),
        engine_restarts: 4,
        peak_rss_bytes: 5,
    }
}

/// A host that answers each message of a range with one of its own, and then ends the link.
#[async_trait]
impl LinkHost for Idle {
    async fn attach(
        &self,
        range: &RangeName,
        messages: FromRangeStream,
    ) -> Result<ToRangeStream, LinkEnd> {
        let name = range.clone();
        if name.as_str() == "gone" {
            return Err(LinkEnd::UnknownRange { name });
        }
        let answers = messages.enumerate().map(move |(n, message)| match message {
            Ok(FromRange::Report(report)) => {
                let references = report.images.into_iter().map(|image| image.reference).collect();
                let (revision, round) = (n as u64, u64::from(report.is_whole));
                Ok(ToRange::Wanted(WantedSet { references, revision, round }))
            }
            Ok(FromRange::Task { id, event: TaskEvent::Planned(plans) }) => {
                let references = plans.into_iter().map(|plan| plan.reference).collect();
                Ok(ToRange::Task { id, task: Task::Plan { references } })
            }
            Ok(FromRange::Task { id, event: TaskEvent::Verified(check) }) => {
                let references = check.reference.into_iter().collect();
                Ok(ToRange::Task { id, task: Task::Verify { references, deep: check.proven } })
            }
            Ok(FromRange::Task { id, event: TaskEvent::Finished(_) }) => Ok(ToRange::Cancel { id }),
            Ok(FromRange::Task { event: TaskEvent::Refused { .. }, .. }) => {
                Err(LinkEnd::Replaced { name: name.clone() })
            }
            Err(reason) => Err(LinkEnd::Unfit { name: name.clone(), reason }),
        });
        Ok(answers.boxed())
    }
}

/// An operator's view in which nothing happens.
pub(crate) struct Idle;

#[async_trait]
impl HostAdmin for Idle {
    async fn stats(&self, _caller: &Caller) -> HostStats {
        let store = StoreStats {
            blobs: 1,
            bytes: 2,
            high_water: 3,
            low_water: 4,
            collected_blobs: 5,
            collected_bytes: 6,
            free: 7,
        };
        let (version, export_way) = ("0.0.0".into(), "save".into());
        HostStats { version, saves: 7, export_way, store, ..HostStats::default() }
    }

    async fn ranges(&self, _caller: &Caller) -> Vec<ServedRange> {
        (0..3).map(busy_range).collect()
    }

    async fn watch_ranges(
        &self,
        _: &Caller,
        names: Vec<RangeName>,
    ) -> BoxStream<'static, RangeChange> {
        let now = RangeChange::Now(Box::new(busy_range(1)));
        stream::iter([now].into_iter().chain(names.into_iter().map(RangeChange::Removed))).boxed()
    }

    async fn add_range(&self, _: &Caller, range: NewRange) -> Result<ServedRange, AdminError> {
        let NewRange { name, tcp, wanted, grants } = range;
        if let Some(address) = tcp.filter(|address| !address.ip().is_loopback()) {
            return Err(AdminError::RemoteNotAllowed { name, address });
        }
        Ok(ServedRange {
            socket_path: format!("/run/ranges/{name}/host.sock").into(),
            name,
            connections: 0,
            tcp_endpoint: tcp,
            wanted: WantedSet::default().replaced(wanted, 0),
            grants,
            attachment: Attachment::Never,
            state: None,
        })
    }

    async fn remove_range(&self, _: &Caller, name: &RangeName) -> Result<(), AdminError> {
        Err(AdminError::UnknownRange { name: name.clone() })
    }

    async fn set_wanted(
        &self,
        _: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
        expected_revision: Option<u64>,
    ) -> Result<WantedSet, AdminError> {
        match (name.as_str(), expected_revision) {
            ("lab-1", None | Some(7)) => Ok(WantedSet { references, revision: 7, round: 70 }),
            ("lab-1", _) => Err(AdminError::Revision { name: name.clone(), revision: 7 }),
            _ => Err(AdminError::UnknownRange { name: name.clone() }),
        }
    }

    async fn wanted(&self, _: &Caller, name: &RangeName) -> Result<RangeWants, AdminError> {
        let wanted = self.set_wanted(&Caller::Admin, name, wanted(), None).await?;
        Ok(RangeWants { wanted, grants: vec!["team/*".parse().unwrap()] })
    }

    async fn set_grants(
        &self,
        _: &Caller,
        _: &RangeName,
        grants: Vec<Pattern>,
    ) -> Result<Vec<Pattern>, AdminError> {
        Ok(grants)
    }

    async fn sync_range(&self, _: &Caller, _: &RangeName) -> Result<u64, AdminError> {
        Ok(71)
    }

    async fn plan_range(
        &self,
        _: &Caller,
        name: &RangeName,
        references: Vec<Reference>,
    ) -> Result<Vec<ImagePlan>, AdminError> {
        match name.as_str() {
            "lab-1" => Ok(references
                .into_iter()
                .map(|reference| ImagePlan::failed(reference, "not on the host".into()))
                .collect()),
            _ => Err(AdminError::NotAttached { name: name.clone(), last_seen: None }),
        }
    }

    async fn verify_range(
        &self,
        _: &Caller,
        name: &RangeName,
        _: Vec<Reference>,
        deep: bool,
    ) -> Result<BoxStream<'static, Result<VerifyEvent, AdminError>>, AdminError> {
        let check = ImageCheck { proven: deep, ..ImageCheck::default() };
        let broken = AdminError::RangeFailed { name: name.clone(), reason: "it went away".into() };
        Ok(stream::iter([Ok(VerifyEvent::Checked(check)), Err(broken)]).boxed())
    }

    async fn transfers(&self, _: &Caller) -> Vec<Transfer> {
        moving()
    }

    async fn prune(&self, _: &Caller, pruning: Pruning) -> Result<Pruned, AdminError> {
        let bytes = pruning.target.unwrap_or(u64::MAX);
        Ok(Pruned { blobs: 1, bytes, kept_leased: u64::from(pruning.dry_run) })
    }

    async fn verify_store(&self, _: &Caller) -> Result<StoreCheck, AdminError> {
        Ok(StoreCheck { blobs: 2, bytes: 3, quarantined: vec![Digest::of(b"bad")] })
    }
}

pub(crate) fn library(images: Arc<dyn ImageSource>, access: Arc<dyn Access>) -> Arc<Library> {
    Arc::new(Library::new(images, access, Leases::default(), Terms::default()))
}

pub(crate) async fn services(caller: Caller, library: Arc<Library>) -> Services {
    let health = Health::not_serving(&HOST_SERVICES).await;
    Services::of_host(caller, library, Arc::new(Idle), Arc::new(Idle), &health)
}

/// A host that shows `images` to a range, and the range's view of it.
pub(crate) async fn host(images: Arc<dyn ImageSource>, pipe: usize) -> (Served, RemoteHost) {
    let library = library(images, Arc::new(AllImages));
    let served = Served::new(services(range("a"), library).await, pipe);
    let host = RemoteHost::new(served.endpoint(), manners());
    (served, host)
}

/// The blobs of an image that the host lends.
pub(crate) async fn lent(host: &RemoteHost, image: &Image) -> Arc<dyn BlobSource> {
    host.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap().blobs
}

/// An image whose layers are exactly these blobs.
pub(crate) fn image_of(blobs: &[Bytes]) -> Image {
    let ids: Vec<_> = blobs.iter().map(|blob| DiffId(Digest::of(blob)).to_string()).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":{ids:?}}}}}"#
    );
    let sizes: Vec<_> = blobs.iter().map(|blob| blob.len() as u64).collect();
    Image::from_layers(config.into(), &sizes).unwrap()
}

/// A host in memory with that image under the name `blobs`.
pub(crate) fn memory_of(blobs: &[Bytes]) -> (MemorySource, Image) {
    let (source, image) = (MemorySource::default(), image_of(blobs));
    let layers = blobs.iter().map(|blob| (descriptor_of(blob), blob.clone())).collect();
    source.insert("blobs", (image.clone(), layers));
    (source, image)
}
