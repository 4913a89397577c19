//! The same against real engines: the one at `LONGSHORE_TEST_DOCKER`, and ranges started in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::docker::{Bind, ContainerSpec, LoadWay, Powers};
use engine::{Docker, DockerSink, EngineError, Export};
use transfer::store::MemoryStore;
use transfer::{BlobStore, ImageSink, ImageSource, Missing, StoreKind};

use crate::sink::bring;
use crate::{
    before_and_after, name, opened, store_of, what_the_engine_refuses_is_read_again_verified,
};

/// Where `cargo xtask test` says that the host's engine is.
const HOST: &str = "LONGSHORE_TEST_DOCKER";

const OVERLAY2: (&str, StoreKind) = ("longshore/range:26.1-overlay2", StoreKind::Graphdriver);
pub(crate) const CONTAINERD: (&str, StoreKind) =
    ("longshore/range:28.5-containerd", StoreKind::Containerd);

pub(crate) async fn host() -> Docker {
    let address = std::env::var(HOST).expect("LONGSHORE_TEST_DOCKER names the host's engine");
    Docker::connect(&address).await.unwrap()
}

/// A range's engine, in a container that is removed by [`Range::remove`].
pub(crate) struct Range {
    pub(crate) host: Docker,
    pub(crate) id: String,
    pub(crate) docker: Docker,
    /// Its `/run`.
    pub(crate) folder: tempfile::TempDir,
}

impl Range {
    pub(crate) async fn start((image, store): (&str, StoreKind)) -> Self {
        let host = host().await;
        let folder = tempfile::tempdir().unwrap();
        let id = create(&host, image, folder.path()).await;
        host.start_container(&id).await.unwrap();
        let address = format!("unix://{}", folder.path().join("docker.sock").display());
        let docker = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                match Docker::connect(&address).await {
                    Ok(docker) => break docker,
                    Err(EngineError::Unreachable { .. }) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        let Ok(docker) = docker.await else {
            let log = host.container_log(&id, 50).await.unwrap();
            panic!("no engine in {image}: {}", String::from_utf8_lossy(&log));
        };
        assert_eq!(docker.info().await.unwrap().store, store);
        Self { host, id, docker, folder }
    }

    pub(crate) async fn remove(self) {
        self.host.remove_container(&self.id).await.unwrap();
    }
}

/// Privileged where the host can, else capability by capability, without those that the engine
/// has never heard of.
async fn create(host: &Docker, image: &str, run: &Path) -> String {
    let bind =
        Bind { source: run.to_str().unwrap().into(), target: "/run".into(), read_only: false };
    let mut capabilities = bounding_set();
    let mut spec = ContainerSpec {
        image: image.into(),
        labels: [("dev.longshore".to_owned(), "1".to_owned())].into(),
        binds: vec![bind],
        ..Default::default()
    };
    loop {
        spec.powers = match capabilities.len() {
            41 => Powers::Privileged,
            _ => Powers::Capabilities(capabilities.clone()),
        };
        match host.create_container(&spec).await {
            Ok(id) => return id,
            Err(EngineError::Refused { message, .. }) => {
                let known = capabilities.len();
                capabilities.retain(|name| !message.contains(&format!("\"{name}\"")));
                assert!(capabilities.len() < known, "{message}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn bounding_set() -> Vec<String> {
    const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID \
        SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK \
        IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT \
        SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
        SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
        CHECKPOINT_RESTORE";
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
    let bits = u64::from_str_radix(bits, 16).unwrap();
    let names = NAMES.split_whitespace().enumerate();
    names.filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| format!("CAP_{name}")).collect()
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_an_image_comes_out_of_the_host_as_it_went_in() {
    let docker = host().await;
    let (image, other, blobs) = before_and_after();
    let sink = DockerSink::new(docker.clone());
    let store = store_of(&blobs).await;
    let tags = ["longshore-test/before:1", "longshore-test/after:1"];
    bring(&sink, &image, &store, tags[0]).await;
    bring(&sink, &other, &store, tags[1]).await;

    let export =
        Export::new(docker.clone(), Arc::new(MemoryStore::default()) as Arc<dyn BlobStore>);
    let summary = export.resolve(&name(tags[0])).await.unwrap();
    assert_eq!(summary.config_digest, image.config_digest);
    assert!(export.list().await.unwrap().contains(&summary));
    let (one, two) = tokio::join!(crate::open(&export, &image), crate::open(&export, &other));
    assert_eq!((one.image, two.image), (image, other));
    assert_eq!(export.stats().saves, 1);
    for tag in tags {
        docker.remove_image(&name(tag)).await.unwrap();
    }
    assert!(export.resolve(&name(tags[0])).await.is_err());
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_overlay2_takes_thin_archives_and_survives_a_lost_base() {
    takes_thin_archives_and_survives_a_lost_base(OVERLAY2).await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_containerd_takes_thin_archives_and_survives_a_lost_base() {
    takes_thin_archives_and_survives_a_lost_base(CONTAINERD).await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_overlay2_keeps_no_layer_that_it_does_not_verify() {
    let range = Range::start(OVERLAY2).await;
    let sink = DockerSink::new(range.docker.clone());
    what_the_engine_refuses_is_read_again_verified(&sink).await;
    range.remove().await;
}

#[tokio::test]
#[ignore = "needs a Docker engine: cargo xtask test runs it"]
async fn docker_containerd_commits_no_layer_that_it_does_not_verify() {
    let range = Range::start(CONTAINERD).await;
    let sink = DockerSink::new(range.docker.clone()).with_way(LoadWay::Containerd, None);
    what_the_engine_refuses_is_read_again_verified(&sink).await;
    range.remove().await;
}

async fn takes_thin_archives_and_survives_a_lost_base(image: (&str, StoreKind)) {
    let range = Range::start(image).await;
    let sink = DockerSink::new(range.docker.clone());
    let (before, after, blobs) = before_and_after();
    let store = store_of(&blobs).await;

    // Cold, and again.
    assert_eq!(sink.prove(&before).await.unwrap(), None);
    assert_eq!(bring(&sink, &before, &store, "app:1").await, Missing::all(&before));
    assert_eq!(sink.missing(&before).await.unwrap().0, [false; 3]);
    let old = sink.prove(&before).await.unwrap().unwrap();
    assert_eq!(old.references, [name("app:1")]);
    sink.discard(&before).await.unwrap();
    assert!(sink.prove(&before).await.unwrap().is_some(), "what has a name was discarded");

    // A new top layer alone moves; and without a name it is discarded.
    let missing = sink.missing(&after).await.unwrap();
    assert_eq!(missing.0, [false, false, true]);
    sink.load(&opened(&after, &store), &missing).await.unwrap();
    assert!(sink.prove(&after).await.unwrap().is_some());
    sink.discard(&after).await.unwrap();
    assert_eq!(sink.prove(&after).await.unwrap(), None);

    // The base goes away between plan and load; an older good image has the name.
    let (good, good_blobs) = transfer::fixture::image(5, &[777]);
    bring(&sink, &good, &store_of(&good_blobs).await, "kept:1").await;
    let missing = sink.missing(&after).await.unwrap();
    assert_eq!(missing.0, [false, false, true]);
    range.docker.remove_image(&name("app:1")).await.unwrap();
    let loaded = sink.load(&opened(&after, &store), &missing).await;
    assert_eq!(sink.prove(&after).await.unwrap(), None, "{loaded:?}");
    assert_eq!(sink.prove(&good).await.unwrap().unwrap().references, [name("kept:1")]);
    sink.discard(&after).await.unwrap();
    let listed = Export::new(range.docker.clone(), Arc::new(MemoryStore::default()));
    if image.1 == StoreKind::Graphdriver {
        assert_eq!(listed.list().await.unwrap().len(), 1, "something broken was left");
    }

    // Healed by the full set, and only then named.
    sink.load(&opened(&after, &store), &Missing::all(&after)).await.unwrap();
    let proof = sink.prove(&after).await.unwrap().expect("the full set heals");
    assert_eq!(proof.references, []);
    sink.tag(&proof, &name("kept:1")).await.unwrap();
    assert_eq!(sink.prove(&after).await.unwrap().unwrap().references, [name("kept:1")]);
    range.remove().await;
}
