//! Damage between plan and load, and in the host's store, does no harm.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use engine::docker::{Docker as Engine, DockerSink};
use proto::client::{Manners, RemoteHost};
use range::{Outcome, Reference, StoreKind};
use transfer::pull::Puller;
use transfer::{
    Event, Image, ImageSink, ImageSource, Intake, LayerForm, LoadError, Missing, OpenImage, Proof,
};

use crate::docker::{Docker, noise};
use crate::site::{Options, Site, stack_image};

/// A sink whose engine loses images just after it was asked what it lacks.
struct Losing {
    sink: DockerSink,
    range: Docker,
    /// Files removed between plan and load.
    lost: Vec<String>,
    done: AtomicBool,
    /// True if the full set, which would heal it, is lost on the way as well.
    hopeless: bool,
}

#[async_trait]
impl ImageSink for Losing {
    async fn intake(&self) -> Result<Intake, LoadError> {
        self.sink.intake().await
    }

    async fn missing(&self, image: &Image) -> Result<Missing, LoadError> {
        let missing = self.sink.missing(image).await?;
        assert!(missing.0.contains(&false), "the load is to be thin, and nothing can be left out");
        if !self.done.swap(true, Ordering::Relaxed) {
            for image in &self.lost {
                self.range.must(&format!("image rm --force {image}"));
            }
        }
        Ok(missing)
    }

    async fn load(&self, opened: &OpenImage, missing: &Missing) -> Result<(), LoadError> {
        // Hopeless: the base is left out of the full set too.
        let thin = Missing([&[false], &missing.0[1..]].concat());
        self.sink.load(opened, if self.hopeless { &thin } else { missing }).await
    }

    async fn prove(&self, image: &Image) -> Result<Option<Proof>, LoadError> {
        self.sink.prove(image).await
    }

    async fn tag(&self, proof: &Proof, reference: &Reference) -> Result<(), LoadError> {
        self.sink.tag(proof, reference).await
    }

    async fn discard(&self, image: &Image) -> Result<(), LoadError> {
        self.sink.discard(image).await
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_base_lost_between_plan_and_load_is_healed_or_the_old_tag_stays() {
    let site = Site::start().await;
    let id = std::process::id();
    let (base, app) = (format!("longshore-test/base-{id}:1"), format!("longshore-test/app-{id}:1"));
    let program = stack_image("tiny");
    site.docker.build(&app, &program, &[&[("version", b"old".to_vec())]]);
    for (store, range) in [(StoreKind::Graphdriver, "layers"), (StoreKind::Containerd, "blobs")] {
        for hopeless in [false, true] {
            let name = format!("{range}-{hopeless}");
            site.docker.build(&app, &program, &[&[("version", b"old".to_vec())]]);
            let old = site.docker.image(&app).unwrap();
            let files: &[(&str, Vec<u8>)] = &[("base", noise(9, 3 << 20))];
            // The base shares no layer with the old image, so that losing it loses its first layer.
            site.docker.build(&base, "scratch", &[files]);
            let report = site.up(store, &[&name], &[&app, &base]).await;
            assert!(report.is_whole(), "{report:#?}");
            site.docker.build(&app, &base, &[&[("version", b"new".to_vec())]]);
            let new = site.docker.image(&app).unwrap();

            let inside = site.inside(&name);
            let engine = Engine::connect(&site.engine_socket(&name)).await.unwrap();
            let sink = Losing {
                sink: DockerSink::new(engine).with_journal(site.path(&format!("{name}.journal"))),
                range: inside.clone(),
                lost: vec![base.clone()],
                done: AtomicBool::new(false),
                hopeless,
            };
            let host = RemoteHost::new(site.admin_endpoint(), Manners::default());
            // A sink leaves out what it has seen proven: this one is new, and has seen nothing.
            let there = host.resolve(&base.parse().unwrap()).await.unwrap();
            let there = host.open(&there.key(), LayerForm::AsStored).await.unwrap();
            assert!(sink.prove(&there.image).await.unwrap().is_some());
            let puller = Puller::new(Arc::new(host), Arc::new(sink), 1);
            let report = puller.pull_one(app.parse().unwrap(), Arc::new(|_: Event| {})).await;
            let (_, layers) = inside.image(&app).expect("the tag is there whatever happens");
            if hopeless {
                assert_eq!(
                    (report.outcome, report.proven),
                    (Outcome::Failed, false),
                    "{report:#?}"
                );
                assert!(report.error.is_some());
                assert_eq!(layers, old.1, "the old image keeps its name");
            } else {
                assert_eq!((report.outcome, report.proven), (Outcome::Synced, true), "{report:#?}");
                assert_eq!(layers, new.1);
            }
            println!("{name}: {:?} {:?}", report.outcome, report.error);
            let dangling = inside.must("images --quiet --filter dangling=true");
            assert!(!hopeless || dangling.is_empty(), "leftovers of a failed load: {dangling}");
        }
    }
    site.docker.must(&format!("image rm --force {app} {base}"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_corrupt_blob_on_the_host_is_put_aside_and_fetched_again() {
    // Or else nothing is kept for the first range, which is alone.
    let flags = vec!["--keep-layers=always".into()];
    let site = Site::with(Options { flags, ..Options::default() }).await;
    let image = format!("longshore-test/corrupt-{}:1", std::process::id());
    site.docker.build(&image, "scratch", &[&[("noise", noise(4, 3 << 20))]]);
    let report = site.up(StoreKind::Graphdriver, &["first"], &[&image]).await;
    assert!(report.is_whole(), "{report:#?}");

    let (_, layers) = site.docker.image(&image).unwrap();
    let name = layers[0].strip_prefix("sha256:").unwrap();
    let blob = site.path("host/store/blobs/sha256").join(name);
    // Once as somebody writes to a file, which the host sees; once as a disk rots, which shows in
    // nothing but the bytes, and which the range finds out.
    for (range, seen) in [("second", true), ("third", false)] {
        let before = fs::metadata(&blob).unwrap().modified().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&blob).unwrap();
        file.write_all_at(b"!", 2 << 20).unwrap();
        if !seen {
            file.set_modified(before).unwrap();
        }
        let quarantined = site.admin().stats().await.unwrap().quarantined;
        let report = site.up(StoreKind::Containerd, &[range], &[&image]).await;
        assert!(report.is_whole(), "{report:#?}");
        assert_eq!(site.inside(range).image(&image).unwrap().1, layers);
        let stats = site.admin().stats().await.unwrap();
        assert_eq!(stats.quarantined, quarantined + 1, "{range}: {stats:?}");
        let check = site.admin().verify_store().await.unwrap();
        assert!(check.quarantined.is_empty(), "{check:?}");
    }
    site.docker.must(&format!("image rm --force {image}"));
}
