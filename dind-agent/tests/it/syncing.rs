//! Whole ways in one process: an engine's images, a host agent, a range's agent, a range's engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
use control::Pattern;
use control::admin::NewRange;
use control::range::{Reach, SyncEvent};
use dind_agent::config::{Command, Config, Serve};
use engine::fixture::FakeDocker;
use futures::StreamExt as _;
use futures::future::join_all;
use process::exit::Exit;
use process::shutdown::Shutdown;
use proto::client::is_serving;
use proto::{AdminClient, Endpoint, RangeClient};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use transfer::event::{EventKind, ImageReport};
use transfer::{Event, Image, Outcome, Reference, StoreKind, fixture};

const STORES: [StoreKind; 2] = [StoreKind::Graphdriver, StoreKind::Containerd];

/// A host with one image, and a range with an empty engine.
struct World {
    folder: TempDir,
    host_engine: FakeDocker,
    range_engine: FakeDocker,
    host_socket: PathBuf,
    image: Image,
    /// The agent's own; the host's is another, since an agent that drains still needs its host.
    shutdown: Shutdown,
    host_shutdown: Shutdown,
    host: JoinHandle<anyhow::Result<Exit>>,
}

impl World {
    async fn make(store: StoreKind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host_engine = FakeDocker::start(StoreKind::Graphdriver);
        let range_engine = FakeDocker::start(store);
        let (image, blobs) = fixture::image(1, &[10, 70_000, 3 << 20]);
        host_engine.add(&image, &blobs, &app());
        let (shutdown, host_shutdown) = (Shutdown::default(), Shutdown::default());
        let state = folder.path().join("host");
        let config = host_config(&state, &host_engine.address());
        let host = tokio::spawn(host_agent::serve(config, host_shutdown.clone()));
        let admin = AdminClient::new(Endpoint::unix(state.join("admin.sock")));
        let range =
            NewRange { grants: vec![Pattern::all()], ..NewRange::named("lab-1".parse().unwrap()) };
        let range = admin.add_range(&range).await.unwrap();
        let host_socket = range.socket_path;
        Self {
            folder,
            host_engine,
            range_engine,
            host_socket,
            image,
            shutdown,
            host_shutdown,
            host,
        }
    }

    fn line(&self, command: &str, more: &[&str]) -> Command {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let host = format!("unix://{}", self.host_socket.display());
        let engine = self.range_engine.address();
        let state = path("state");
        let line = ["dind", command, "--engine", &engine, "--host", &host, "--state-dir", &state];
        Config::parse_from(line.iter().chain(more)).command
    }

    /// Serves the range's agent, as it would be in the range.
    fn serve(&self, more: &[&str]) -> (RangeClient, JoinHandle<anyhow::Result<Exit>>) {
        let listen = self.agent_socket();
        let more: Vec<&str> = ["--listen", listen.to_str().unwrap(), "--drain-timeout", "5s"]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let task = tokio::spawn(dind_agent::serve(
            serve(self.line("serve", &more)),
            self.shutdown.clone(),
        ));
        (RangeClient::new(Endpoint::unix(listen)), task)
    }

    fn agent_socket(&self) -> PathBuf {
        self.folder.path().join("agent/agent.sock")
    }

    async fn run(&self, command: Command) -> anyhow::Result<Exit> {
        dind_agent::run(command, self.shutdown.clone()).await
    }

    async fn end(self, agent: JoinHandle<anyhow::Result<Exit>>) {
        self.shutdown.drain();
        assert_eq!(agent.await.unwrap().unwrap(), Exit::Ok);
        self.host_shutdown.drain();
        assert_eq!(self.host.await.unwrap().unwrap(), Exit::Ok);
    }
}

fn host_config(state: &Path, engine: &str) -> host_agent::config::Serve {
    let line = ["host", "serve", "--inspect", "off", "--drain-timeout", "5s", "--engine", engine];
    let line = line.into_iter().map(Into::into);
    let line = line.chain(["--state-dir".into(), state.as_os_str().to_owned()]);
    match host_agent::config::Config::parse_from(line).command {
        host_agent::config::Command::Serve(serve) => serve,
        command => unreachable!("the line says serve: {command:?}"),
    }
}

fn serve(command: Command) -> Serve {
    match command {
        Command::Serve(serve) => serve,
        command => unreachable!("the line says serve: {command:?}"),
    }
}

fn app() -> Reference {
    "app:1".parse().unwrap()
}

fn size(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.blob.size).sum()
}

/// Syncs, and gives the images' results in the order in which they came.
async fn sync(client: &RangeClient, references: &[Reference]) -> Vec<ImageReport> {
    let events: Vec<_> = client.sync(references).await.unwrap().collect().await;
    let events: Vec<SyncEvent> = events.into_iter().map(Result::unwrap).collect();
    assert!(matches!(events.last(), Some(SyncEvent::Finished(_))), "{events:?}");
    let done = events.into_iter().filter_map(|event| match event {
        SyncEvent::Image(Event { kind: EventKind::Done(report), .. }) => Some(report),
        _ => None,
    });
    done.collect()
}

#[tokio::test]
async fn an_image_comes_once_and_is_proven_on_both_stores() {
    for store in STORES {
        let world = World::make(store).await;
        let (client, agent) = world.serve(&[]);
        let first = &sync(&client, &[app(), app()]).await;
        assert_eq!(first.len(), 1, "{store}: one result per image: {first:?}");
        assert_eq!((first[0].outcome, first[0].proven), (Outcome::Synced, true), "{first:?}");
        assert_eq!(first[0].bytes_moved, size(&world.image), "{store}");
        let second = &sync(&client, &[app()]).await[0];
        assert_eq!((second.outcome, second.proven), (Outcome::Skipped, true), "{second:?}");
        assert_eq!((second.bytes_moved, second.bytes_saved), (0, size(&world.image)), "{store}");

        let images = client.images().await.unwrap();
        assert_eq!(images.len(), 1, "{images:?}");
        assert_eq!(images[0].references, [app()]);
        assert_eq!(images[0].config_digest, Some(world.image.config_digest), "{store}");
        assert!(images[0].proven, "{store}");
        let status = client.status().await.unwrap();
        let Reach::Up(info) = &status.engine else { panic!("{status:?}") };
        assert_eq!(info.store, store);
        assert_eq!((&status.host, status.syncs), (&Reach::Up(()), 0), "{status:?}");
        world.end(agent).await;
    }
}

#[tokio::test]
async fn one_image_that_fails_does_not_stop_the_others() {
    let world = World::make(StoreKind::Graphdriver).await;
    let (client, agent) = world.serve(&[]);
    let mut reports = sync(&client, &["absent:1".parse().unwrap(), app()]).await;
    reports.sort_by(|left, right| left.reference.cmp(&right.reference));
    assert_eq!(
        reports.iter().map(|report| report.outcome).collect::<Vec<_>>(),
        [Outcome::Failed, Outcome::Synced]
    );
    let error = reports[0].error.as_deref().unwrap();
    assert!(error.contains("absent:1") && error.contains("docker images"), "{error}");
    world.end(agent).await;
}

#[tokio::test]
async fn syncs_of_one_image_at_once_load_it_once() {
    let world = World::make(StoreKind::Graphdriver).await;
    let (client, agent) = world.serve(&[]);
    let wanted = [app()];
    let reports = join_all((0..4).map(|_| sync(&client, &wanted))).await;
    assert!(reports.iter().all(|reports| reports[0].proven), "{reports:?}");
    // Those that ask before the look begins share its result; the others find the image there.
    let moved = |report: &ImageReport| match report.outcome {
        Outcome::Synced => report.bytes_moved == size(&world.image),
        _ => report.outcome == Outcome::Skipped && report.bytes_moved == 0,
    };
    assert!(reports.iter().all(|reports| moved(&reports[0])), "{reports:?}");
    assert_eq!(world.range_engine.loads().len(), 1);
    world.end(agent).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing() {
    let world = World::make(StoreKind::Containerd).await;
    let (client, agent) = world.serve(&[]);
    drop(client.sync(&[app()]).await.unwrap());
    drop(client);
    // The drain waits for the sync that nobody watches any more.
    world.shutdown.drain();
    assert_eq!(agent.await.unwrap().unwrap(), Exit::Ok);
    assert_eq!(world.range_engine.named(&app()), Some(world.image.manifest_digest));
}

#[tokio::test]
async fn a_range_is_well_once_what_was_wanted_is_there() {
    let world = World::make(StoreKind::Containerd).await;
    let (client, agent) = world.serve(&["--image", "app:1"]);
    // The agent's socket is bound before this returns a first time.
    client.status().await.unwrap();
    let endpoint = Endpoint::unix(world.agent_socket());
    while !is_serving(&endpoint).await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.range_engine.named(&app()), Some(world.image.manifest_digest));
    let healthcheck = format!("--listen={}", world.agent_socket().display());
    let command = Config::parse_from(["dind", "healthcheck", &healthcheck]).command;
    assert_eq!(world.run(command).await.unwrap(), Exit::Ok);
    world.end(agent).await;
}

#[tokio::test]
async fn a_single_sync_ends_with_the_code_that_scripts_expect() {
    let world = World::make(StoreKind::Graphdriver).await;
    let listen = format!("--listen={}", world.agent_socket().display());
    let good = world.line("sync", &["app:1", "--format", "json", &listen]);
    assert_eq!(world.run(good.clone()).await.unwrap(), Exit::Ok);
    assert_eq!(world.run(good).await.unwrap(), Exit::Ok);
    let half = world.line("sync", &["app:1", "absent:1", "--alone"]);
    assert_eq!(world.run(half).await.unwrap(), Exit::SomeFailed);
    let Command::Sync(mut once) = world.line("sync", &["app:1", "--alone"]) else {
        panic!("not sync")
    };
    once.path.host = "unix:///nowhere/host.sock".parse().unwrap();
    let error = format!("{:#}", world.run(Command::Sync(once.clone())).await.unwrap_err());
    assert!(error.contains("no host agent") && error.contains("/nowhere/host.sock"), "{error}");
    once.path.engine = "unix:///nowhere/docker.sock".into();
    let error = format!("{:#}", world.run(Command::Sync(once)).await.unwrap_err());
    assert!(error.contains("no engine") && error.contains("/nowhere/docker.sock"), "{error}");
    assert_eq!(world.host_engine.saves(), 1);
}

#[tokio::test]
async fn a_single_sync_goes_through_the_agent_that_is_there() {
    let world = World::make(StoreKind::Containerd).await;
    let (client, agent) = world.serve(&[]);
    client.status().await.unwrap();
    let listen = format!("--listen={}", world.agent_socket().display());
    let Command::Sync(mut once) = world.line("sync", &["app:1", &listen]) else {
        panic!("not sync")
    };
    // Its own ends are not asked for anything.
    once.path.host = "unix:///nowhere/host.sock".parse().unwrap();
    once.path.engine = "unix:///nowhere/docker.sock".into();
    assert_eq!(world.run(Command::Sync(once.clone())).await.unwrap(), Exit::Ok);
    // The agent remembers what the image is made of.
    let images = client.images().await.unwrap();
    assert_eq!(images[0].config_digest, Some(world.image.config_digest));
    once.images.push("absent:1".parse().unwrap());
    assert_eq!(world.run(Command::Sync(once)).await.unwrap(), Exit::SomeFailed);
    world.end(agent).await;
}

#[tokio::test]
async fn what_the_host_keeps_as_wanted_comes_without_being_asked_for() {
    let world = World::make(StoreKind::Containerd).await;
    let (client, agent) = world.serve(&[]);
    assert!(!client.status().await.unwrap().in_step, "nobody said yet what is wanted");
    let admin = AdminClient::new(Endpoint::unix(world.folder.path().join("host/admin.sock")));
    admin.set_wanted(&"lab-1".parse().unwrap(), &[app()], None).await.unwrap();
    let in_step = async {
        loop {
            let status = client.status().await.unwrap();
            if status.in_step && status.wanted == 1 {
                break status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = in_step.await;
    assert_eq!(status.last_sync.unwrap().error, None);
    assert_eq!(world.range_engine.named(&app()), Some(world.image.manifest_digest));
    assert_eq!(sync(&client, &[app()]).await[0].outcome, Outcome::Skipped);
    assert_eq!(world.range_engine.loads().len(), 1);
    world.end(agent).await;
}

#[tokio::test]
async fn an_image_that_is_removed_in_the_range_makes_it_unwell_until_it_is_back() {
    let world = World::make(StoreKind::Containerd).await;
    let (client, agent) = world.serve(&["--image", "app:1"]);
    client.status().await.unwrap();
    let endpoint = Endpoint::unix(world.agent_socket());
    let until_well = async |well: bool| {
        while is_serving(&endpoint).await.unwrap() != well {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until_well(true).await;
    world.range_engine.remove(&app());
    tokio::time::timeout(Duration::from_secs(5), until_well(false)).await.expect("not seen");
    let status = client.status().await.unwrap();
    assert!(!status.in_step);
    assert_eq!(status.lacking, ["app:1 was removed from the range's engine"]);
    let healthcheck = format!("--listen={}", world.agent_socket().display());
    let command = Config::parse_from(["dind", "healthcheck", &healthcheck]).command;
    let error = format!("{:#}", world.run(command).await.unwrap_err());
    assert!(error.contains("app:1 was removed"), "{error}");

    // A sync inside the range brings it back at once.
    let report = &sync(&client, &[app()]).await[0];
    assert_eq!((report.outcome, report.proven), (Outcome::Synced, true), "{report:?}");
    until_well(true).await;
    world.end(agent).await;
}
