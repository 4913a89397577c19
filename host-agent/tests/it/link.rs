//! Ranges that attach: what a host agent shows of them, and what it has them do.

use std::time::Duration;

use control::RangeName;
use control::admin::{NewRange, RangeChange};
use control::link::{
    AgentStatus, Attachment, FromRange, ImageState, ImageStatus, LinkRange as _, RangeReport, Task,
    TaskEvent, ToRange, WantedBy,
};
use control::range::{ImageCheck, ImagePlan, Reach, VerifyEvent, VerifySummary};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::client::Manners;
use proto::{AdminClient, Endpoint, LinkClient, RemoteHost};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use transfer::{BlobError, BlobSource as _, ImageSource as _, LayerForm, Reference, SourceError};

use crate::host::{HostAgent, HostProcess, app, engine, folder, read_all, size};

fn lab() -> RangeName {
    "lab-1".parse().unwrap()
}

/// An agent that sends prepared messages.
struct Agent {
    says: mpsc::Sender<FromRange>,
    told: control::link::FromHostStream,
}

impl Agent {
    /// Attaches as the range, with a first report of these images.
    async fn attach(admin: &AdminClient, images: Vec<ImageStatus>) -> Self {
        let range = admin.add_range(&NewRange::named(lab())).await.unwrap();
        let (says, said) = mpsc::channel(16);
        says.send(report(true, images)).await.unwrap();
        let client = LinkClient::new(Endpoint::unix(range.socket_path));
        let told = client.attach(ReceiverStream::new(said).boxed()).await.unwrap();
        Self { says, told }
    }

    async fn told(&mut self) -> ToRange {
        self.told.next().await.unwrap().unwrap()
    }
}

/// A report of these images, by an agent whose engine does not answer.
pub(crate) fn report(is_whole: bool, images: Vec<ImageStatus>) -> FromRange {
    let agent = AgentStatus {
        version: "1.2.3".into(),
        uptime: Duration::from_secs(1),
        engine: Reach::Down("\u{1b}[2Jno answer".into()),
        engine_restarts: 1,
        peak_rss_bytes: 2,
    };
    FromRange::Report(RangeReport { is_whole, agent, images, removed: Vec::new() })
}

fn present(reference: Reference, round: u64) -> ImageStatus {
    ImageStatus {
        state: ImageState::Present,
        looked_round: Some(round),
        ..ImageStatus::pending(reference, WantedBy::Host)
    }
}

#[tokio::test]
async fn a_host_shows_what_a_range_reports_and_watchers_see_it_change() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    let new = NewRange { wanted: vec![app()], ..NewRange::named(lab()) };
    let added = admin.add_range(&new).await.unwrap();
    assert_eq!((added.wanted.references, added.attachment), (vec![app()], Attachment::Never));
    let again = NewRange { wanted: Vec::new(), grants: vec!["*".parse().unwrap()], ..new };
    let again = admin.add_range(&again).await.unwrap();
    assert_eq!((again.wanted.references, again.grants), (vec![app()], vec![]), "a known range");
    let round = admin.sync_range(&lab()).await.unwrap();
    assert!(added.wanted.round < round);

    let mut changes = admin.watch_ranges(&[]).await.unwrap();
    let mut state = async || match changes.next().await.unwrap().unwrap() {
        RangeChange::Now(range) => Some(*range),
        RangeChange::Removed(_) => None,
    };
    let first = state().await.unwrap();
    assert_eq!((first.attachment, first.is_in_step()), (Attachment::Never, false));

    let mut range = Agent::attach(&admin, vec![present(app(), round - 1)]).await;
    let ToRange::Wanted(set) = range.told().await else { panic!("no set") };
    assert_eq!((set.references, set.round), (vec![app()], round));
    let attached = loop {
        let range = state().await.unwrap();
        if range.state.is_some() {
            break range;
        }
    };
    assert!(matches!(attached.attachment, Attachment::Attached { .. }));
    assert!(!attached.is_in_step(), "it was looked at in an earlier round");
    let engine = attached.state.unwrap().agent.engine;
    assert_eq!(engine, Reach::Down(r"\u{1b}[2Jno answer".into()));

    range.says.send(report(false, vec![present(app(), round)])).await.unwrap();
    while !state().await.unwrap().is_in_step() {}
    assert_eq!(admin.ranges().await.unwrap()[0].state.as_ref().unwrap().images.len(), 1);

    drop(range);
    while !matches!(state().await.unwrap().attachment, Attachment::Detached { .. }) {}
    admin.remove_range(&lab()).await.unwrap();
    while state().await.is_some() {}
    agent.stop().await.unwrap();
    assert!(changes.next().await.unwrap().is_err(), "the watch ended as if all was said");
}

#[tokio::test]
async fn a_range_plans_and_verifies_over_its_link() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    admin.add_range(&NewRange::named(lab())).await.unwrap();
    let away = admin.plan_range(&lab(), &[app()]).await.unwrap_err();
    assert!(transfer::explain(&away).contains("is not attached"), "{away:?}");

    let mut range = Agent::attach(&admin, Vec::new()).await;
    let works = tokio::spawn(async move {
        while let Some(Ok(told)) = range.told.next().await {
            let ToRange::Task { id, task } = told else { continue };
            let events = match task {
                Task::Plan { references } => {
                    let plan = |reference| ImagePlan::failed(reference, "no\nway".into());
                    vec![TaskEvent::Planned(references.into_iter().map(plan).collect())]
                }
                Task::Verify { deep, .. } => vec![
                    TaskEvent::Verified(ImageCheck { proven: deep, ..ImageCheck::default() }),
                    TaskEvent::Finished(VerifySummary::default()),
                ],
            };
            for event in events {
                range.says.send(FromRange::Task { id, event }).await.unwrap();
            }
        }
    });
    let plans = admin.plan_range(&lab(), &[app()]).await.unwrap();
    assert_eq!(plans, [ImagePlan::failed(app(), "no way".into())]);
    let events = admin.verify_range(&lab(), &[], true).await.unwrap();
    let events: Vec<_> = events.try_collect().await.unwrap();
    let [VerifyEvent::Checked(check), VerifyEvent::Finished(_)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(check.proven);
    works.abort();
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn a_plan_shows_documents_while_it_lasts_and_grants_no_blob() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    let range = admin.add_range(&NewRange::named(lab())).await.unwrap();
    let host = RemoteHost::new(Endpoint::unix(range.socket_path), Manners::default());
    let is_absent = async || {
        let resolved = host.resolve(&app()).await;
        let opened = host.open(&image.config_digest.into(), LayerForm::AsStored).await;
        matches!(resolved, Err(SourceError::NotFound { .. }))
            && matches!(opened.map(drop), Err(SourceError::NotFound { .. }))
            && host.list().await.unwrap().is_empty()
    };
    assert!(is_absent().await, "nothing was granted");

    let mut attached = Agent::attach(&admin, Vec::new()).await;
    let planning = tokio::spawn({
        let admin = admin.clone();
        async move { admin.plan_range(&lab(), &[app()]).await }
    });
    let id = loop {
        if let ToRange::Task { id, .. } = attached.told().await {
            break id;
        }
    };
    assert_eq!(host.resolve(&app()).await.unwrap().config_digest, image.config_digest);
    let opened = host.open(&image.config_digest.into(), LayerForm::AsStored).await.unwrap();
    let digest = opened.image.layers[0].blob.digest;
    let read = opened.blobs.open(&digest, 0).await.map(drop).unwrap_err();
    assert!(matches!(read, BlobError::NotFound { .. }), "{read:?}");
    assert_eq!(opened.blobs.stat(&digest).await.unwrap(), None);
    assert!(host.list().await.unwrap().is_empty(), "a plan lists nothing");

    let event = TaskEvent::Planned(vec![ImagePlan::failed(app(), "no".into())]);
    attached.says.send(FromRange::Task { id, event }).await.unwrap();
    planning.await.unwrap().unwrap();
    assert!(is_absent().await, "the plan is over");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn two_administrators_at_once_lose_nothing() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    admin.add_range(&NewRange::named(lab())).await.unwrap();
    let (admin, lab) = (&admin, &lab());
    let adding = (0..20).map(|n| async move {
        let image: Reference = format!("app:{n}").parse().unwrap();
        admin.update_wanted(lab, move |set| set.push(image.clone())).await.unwrap()
    });
    futures::future::join_all(adding).await;
    let wants = admin.wanted(lab).await.unwrap();
    assert_eq!((wants.wanted.references.len(), wants.wanted.revision), (20, 20));
    let stale = admin.set_wanted(lab, &[], Some(19)).await.unwrap_err();
    assert_eq!(stale.reason(), "REVISION");
    agent.stop().await.unwrap();
}

#[tokio::test]
async fn wants_grants_and_rounds_survive_a_kill() {
    let ((docker, _image), folder) = (engine(), folder());
    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let new = NewRange {
        wanted: vec![app()],
        grants: vec!["team/*".parse().unwrap(), "team/*".parse().unwrap()],
        ..NewRange::named(lab())
    };
    let added = admin.add_range(&new).await.unwrap();
    assert_eq!(added.grants, ["team/*".parse().unwrap()], "twice is once");
    let round = admin.sync_range(&lab()).await.unwrap();
    agent.kill().await;

    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    let wants = admin.wanted(&lab()).await.unwrap();
    assert_eq!((wants.wanted.references, wants.wanted.round), (vec![app()], round));
    assert_eq!(wants.grants, added.grants);
    let grants = vec!["*".parse().unwrap()];
    assert_eq!(admin.set_grants(&lab(), &grants).await.unwrap(), grants);
    agent.kill().await;

    let agent = HostProcess::start(folder.path(), &docker.address());
    let admin = agent.admin(folder.path()).await;
    assert_eq!(admin.wanted(&lab()).await.unwrap().grants, grants);
    // A range that is removed and added again has no round that it had before.
    admin.remove_range(&lab()).await.unwrap();
    assert!(round < admin.add_range(&new).await.unwrap().wanted.round);
    agent.kill().await;
}

#[tokio::test]
async fn a_range_reads_what_it_was_granted_while_it_is() {
    let ((docker, image), folder) = (engine(), folder());
    let agent = HostAgent::start(folder.path(), &docker.address());
    let admin = agent.admin();
    let range = admin.add_range(&NewRange::named(lab())).await.unwrap();
    let host = RemoteHost::new(Endpoint::unix(range.socket_path), Manners::default());
    let is_hidden = async || {
        let resolved = host.resolve(&app()).await;
        let read = read_all(&host, &image).await;
        let error = read.err().map(|error| error.to_string()).unwrap_or_default();
        host.list().await.unwrap().is_empty()
            && matches!(resolved, Err(SourceError::NotFound { .. }))
            && error.contains("is not on the host")
    };
    assert!(is_hidden().await, "nothing was granted");
    admin.set_grants(&lab(), &["other/*".parse().unwrap()]).await.unwrap();
    assert!(is_hidden().await, "something else was granted");

    for granted in [true, false] {
        // Once by a pattern, once as a wanted image.
        if granted {
            admin.set_grants(&lab(), &["app".parse().unwrap()]).await.unwrap();
        } else {
            admin.set_wanted(&lab(), &[app()], None).await.unwrap();
        }
        assert_eq!(host.list().await.unwrap().len(), 1);
        assert!(host.resolve(&app()).await.is_ok());
        assert_eq!(read_all(&host, &image).await.unwrap(), size(&image));
        admin.set_grants(&lab(), &[]).await.unwrap();
        admin.set_wanted(&lab(), &[], None).await.unwrap();
        assert!(is_hidden().await, "the grant was taken away");
    }
    agent.stop().await.unwrap();
}
