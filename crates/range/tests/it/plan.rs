//! Plans change nothing, and a range that is only reached over TCP follows its wanted set.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use control::admin::{NewRange, RangeChange};
use futures::StreamExt as _;
use range::{RangeName, Selection, StoreKind};

use crate::site::{Site, references, stack_image, variable};

#[tokio::test]
#[ignore = "needs a Docker engine and range images: cargo xtask test"]
async fn dind_a_plan_tells_what_would_move_and_changes_nothing() {
    let (there, lacking) = (stack_image("tiny"), stack_image("python"));
    let site = Site::start().await;
    for (name, store) in [("a", StoreKind::Graphdriver), ("b", StoreKind::Containerd)] {
        assert!(site.up(store, &[name], &[&there]).await.is_whole());
        let range: RangeName = name.parse().unwrap();
        let held = site.inside(name).must("image ls --all --no-trunc");
        let before = site.admin().stats().await.unwrap();

        let selection = Selection::Names(vec![range.clone()]);
        let plans = site.ranges.plan(&selection, &references(&[&there, &lacking])).await.unwrap();
        let [plan] = plans.as_slice() else { panic!("{plans:?}") };
        let [has, lacks] = plan.images.as_slice() else { panic!("{plan:?}") };
        assert!(has.already_there && has.bytes_to_move == 0, "{store}: {has:?}");
        assert!(!lacks.already_there && 0 < lacks.bytes_to_move, "{store}: {lacks:?}");

        let after = site.admin().stats().await.unwrap();
        assert_eq!(after.engine_bytes_read, before.engine_bytes_read, "{store}: layers were read");
        assert_eq!(after.bytes_served, before.bytes_served, "{store}: layers were moved");
        assert_eq!(site.inside(name).must("image ls --all --no-trunc"), held, "{store}");
        let wanted = site.admin().wanted(&range).await.unwrap();
        assert_eq!(wanted.wanted.references, references(&[&there]), "{store}");

        let planned = lacks.bytes_to_move;
        let report = site.sync(&[name], &[&lacking]).await;
        assert!(report.is_whole(), "{report:?}");
        let moved: u64 = report.ranges[0].images.iter().map(|image| image.bytes_moved).sum();
        assert_eq!(moved, planned, "{store}: a plan is what then happens");
    }
}

/// A dind agent of a test's own, ended with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait().map(drop)) {
            eprintln!("the dind agent stays: {error}");
        }
    }
}

#[tokio::test]
#[ignore = "needs a Docker engine and range images: cargo xtask test"]
async fn dind_a_remote_range_follows_what_is_wanted_over_loopback_tcp() {
    let image = stack_image("tiny");
    let site = Site::start().await;
    // Only its engine is used: the agent beside it stands for one that is elsewhere.
    assert!(site.up(StoreKind::Containerd, &["engine"], &[&image]).await.is_whole());
    site.want_nothing("engine").await;
    site.inside("engine").must(&format!("image rm --force {image}"));

    let far: RangeName = "far".parse().unwrap();
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let wanted = references(&[&image]);
    let new = NewRange { tcp: Some(any_port), wanted, ..NewRange::named(far.clone()) };
    let served = site.admin().add_range(&new).await.unwrap();
    let address = served.tcp_endpoint.expect("it is served on an address");
    let socket = site.path("far.sock");
    let _agent = Agent(
        Command::new(variable("LONGSHORE_TEST_DIND_AGENT"))
            .args(["serve", "--name", "far", "--inspect", "off"])
            .args(["--host", &format!("http://{address}")])
            .args(["--engine", &site.engine_socket("engine")])
            .arg("--listen")
            .arg(&socket)
            .arg("--state-dir")
            .arg(site.path("far-state"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    // Its agent opens the only connection there is.
    let mut changes = site.admin().watch_ranges(std::slice::from_ref(&far)).await.unwrap();
    let in_step = async {
        while let Some(change) = changes.next().await {
            if matches!(change.unwrap(), RangeChange::Now(range) if range.is_in_step()) {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(Duration::from_secs(60), in_step).await.unwrap();
    let here = site.docker.image(&image).unwrap();
    assert_eq!(site.inside("engine").image(&image).expect("it is in step").1, here.1);
    // An address is an identity for reading, and for nothing else.
    let intruder = proto::AdminClient::new(format!("http://{address}").parse().unwrap());
    intruder.set_wanted(&far, &[], None).await.unwrap_err();
}
