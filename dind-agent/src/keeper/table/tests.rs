//! Statuses of images and due looks in the table, without an engine or a host.

use transfer::{Digest, StoreKind};

use super::*;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn id(text: &str) -> EngineImageId {
    EngineImageId(Digest::of(text.as_bytes()))
}

fn held(image: &str, names: &[&str]) -> HeldImage {
    HeldImage {
        engine_image_id: id(image),
        references: names.iter().map(|text| name(text)).collect(),
        config_digest: None,
        proven: true,
    }
}

fn set(names: &[&str], round: u64) -> WantedSet {
    let references = names.iter().map(|text| name(text)).collect();
    WantedSet { references, revision: round, round }
}

fn brought(text: &str, outcome: Outcome, fault: Option<Fault>) -> Brought {
    let is_there = outcome != Outcome::Failed;
    let report = ImageReport {
        reference: name(text),
        config_digest: None,
        engine_image_id: is_there.then(|| id(text)),
        outcome,
        proven: is_there,
        bytes_moved: 0,
        bytes_saved: 0,
        stages: Vec::new(),
        error: fault.map(|fault| format!("{fault:?}")),
    };
    Brought { report, fault }
}

fn loaded(text: &str) -> Brought {
    brought(text, Outcome::Synced, None)
}

fn failed(text: &str, fault: Fault) -> Brought {
    brought(text, Outcome::Failed, Some(fault))
}

/// A table with its engine up and empty.
fn table(own: &[&str]) -> Table {
    let mut table = Table::new(own.iter().map(|text| name(text)).collect());
    list(&mut table, &[]);
    table
}

/// The engine lists its images now.
fn list(table: &mut Table, images: &[HeldImage]) {
    let info = EngineInfo {
        engine: "docker 28.5.2".into(),
        store: StoreKind::Containerd,
        driver: "overlayfs".into(),
        id: String::new(),
    };
    table.hold(&info, images, Instant::now());
}

/// The looks that begin now, by name.
fn begin(table: &mut Table) -> Vec<String> {
    let begun = table.begin(Instant::now(), Gate::Open);
    begun.iter().map(ToString::to_string).collect()
}

fn done(table: &mut Table, brought: Brought) {
    table.done(brought, Instant::now());
}

fn state(table: &Table, text: &str) -> ImageState {
    table.status(&name(text)).unwrap().state.clone()
}

/// Time passes until the next look is due by itself; how much.
async fn pause(table: &Table) -> Duration {
    let began = Instant::now();
    tokio::time::sleep_until(table.next_at().expect("a look is due")).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn every_wanted_image_is_looked_at_once_in_each_round() {
    let mut table = table(&[]);
    assert!(table.standing().is_complete(), "nothing is wanted");
    table.want(set(&["a:1", "b:1"], 7));
    assert_eq!(state(&table, "a:1"), ImageState::Pending);
    assert_eq!(begin(&mut table), ["a:1", "b:1"]);
    assert_eq!(begin(&mut table), [""; 0]);
    assert_eq!(state(&table, "a:1"), ImageState::OnItsWay(Stage::Resolve));
    done(&mut table, loaded("a:1"));
    let status = table.status(&name("a:1")).unwrap();
    assert!(status.is_settled(7) && status.was_loaded(7), "{status:?}");

    // Two rounds follow each other while b is on its way: one look more answers both.
    table.want(set(&["a:1", "b:1"], 8));
    table.want(set(&["a:1", "b:1"], 9));
    assert_eq!(begin(&mut table), ["a:1"]);
    done(&mut table, brought("a:1", Outcome::Skipped, None));
    let status = table.status(&name("a:1")).unwrap();
    assert!(status.is_settled(9) && !status.was_loaded(8), "{status:?}");
    done(&mut table, loaded("b:1"));
    let status = table.status(&name("b:1")).unwrap();
    assert!(status.is_settled(7) && !status.is_settled(8), "its look began before: {status:?}");
    assert_eq!(begin(&mut table), ["b:1"]);
    done(&mut table, brought("b:1", Outcome::Skipped, None));
    assert!(table.status(&name("b:1")).unwrap().is_settled(9));
    assert!(table.standing().is_complete());
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_looked_at_again_stays_present_until_it_loads() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    begin(&mut table);
    done(&mut table, loaded("a:1"));
    table.want(set(&["a:1"], 2));
    begin(&mut table);
    assert_eq!(state(&table, "a:1"), ImageState::Present);
    table.observe(&name("a:1"), &EventKind::Entered(Stage::Load));
    assert_eq!(state(&table, "a:1"), ImageState::OnItsWay(Stage::Load));
    table.observe(&name("a:1"), &EventKind::Moved { bytes_moved: 5 });
    assert_eq!(table.status(&name("a:1")).unwrap().bytes_moved, 5);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_failed_is_tried_again_after_longer_and_longer_pauses() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(begin(&mut table), ["a:1"]);
        done(&mut table, failed("a:1", Fault::Away));
        let error = "Away".to_owned();
        let away = ImageState::Failed { error, is_permanent: false };
        assert_eq!(state(&table, "a:1"), away);
        assert!(table.status(&name("a:1")).unwrap().is_settled(1), "it failed in this round");
        assert_eq!(pause(&table).await, Duration::from_secs(expected));
    }
    begin(&mut table);
    done(&mut table, failed("a:1", Fault::NotOnHost));
    let lasts = |state| matches!(state, ImageState::Failed { is_permanent: true, .. });
    assert!(lasts(state(&table, "a:1")));
    // The host is back, with the same set: an image that failed is looked at at once.
    table.want(set(&["a:1"], 1));
    assert_eq!(begin(&mut table), ["a:1"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_set_again_is_no_reason_to_look_at_what_is_present() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    begin(&mut table);
    done(&mut table, loaded("a:1"));
    table.want(set(&["a:1"], 1));
    assert_eq!(begin(&mut table), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_removed_is_gone_and_is_brought_back() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    for expected in [10, 20, 40] {
        begin(&mut table);
        done(&mut table, loaded("a:1"));
        tokio::time::advance(Duration::from_millis(1)).await;
        list(&mut table, &[]);
        assert_eq!(state(&table, "a:1"), ImageState::Gone);
        assert_eq!(table.standing().lost, 1);
        assert_eq!(
            table.lacking().collect::<Vec<_>>(),
            ["a:1 was removed from the range's engine"]
        );
        assert_eq!(begin(&mut table), [""; 0], "it is not fought over");
        assert_eq!(pause(&table).await, Duration::from_secs(expected));
    }
    assert_eq!(begin(&mut table), ["a:1"]);
}

#[tokio::test(start_paused = true)]
async fn another_image_under_the_name_has_replaced_it_and_is_replaced_in_turn() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    begin(&mut table);
    done(&mut table, loaded("a:1"));
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[held("other", &["a:1", "b:1"])]);
    assert_eq!(state(&table, "a:1"), ImageState::Replaced);
    assert_eq!(table.status(&name("a:1")).unwrap().engine_image_id, Some(id("other")));
    pause(&table).await;
    assert_eq!(begin(&mut table), ["a:1"]);
    done(&mut table, loaded("a:1"));

    // Somebody puts it right before that.
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[held("other", &["a:1"])]);
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[held("a:1", &["a:1"])]);
    assert_eq!(state(&table, "a:1"), ImageState::Present);
    assert_eq!(table.next_at(), None);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_began_before_a_proof_does_not_contradict_it() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    begin(&mut table);
    let before = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    done(&mut table, loaded("a:1"));
    let Reach::Up(info) = table.engine().clone() else { panic!("{:?}", table.engine()) };
    table.hold(&info, &[], before);
    assert_eq!(state(&table, "a:1"), ImageState::Present);
}

#[tokio::test(start_paused = true)]
async fn an_image_whose_layers_the_engine_lost_is_gone() {
    let mut table = table(&[]);
    table.want(set(&["a:1"], 1));
    begin(&mut table);
    done(&mut table, loaded("a:1"));
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[HeldImage { proven: false, ..held("a:1", &["a:1"]) }]);
    assert_eq!(state(&table, "a:1"), ImageState::Gone);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_the_engine_confirms_is_present_whatever_the_host_has() {
    for (fault, is_present) in
        [(Fault::NotOnHost, true), (Fault::Away, true), (Fault::Lasting, false)]
    {
        let mut table = table(&["a:1"]);
        list(&mut table, &[held("any", &["a:1"])]);
        assert_eq!(state(&table, "a:1"), ImageState::Present, "before the first look");
        begin(&mut table);
        assert_eq!(state(&table, "a:1"), ImageState::Present, "while it is looked at");
        done(&mut table, failed("a:1", fault));
        assert_eq!(table.standing().is_complete(), is_present, "{fault:?}");
        let is_failed = matches!(state(&table, "a:1"), ImageState::Failed { .. });
        assert_eq!(is_failed, !is_present, "{fault:?}");
        assert!(table.next_at().is_some(), "{fault:?}: it is tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_by_digest_is_present_while_its_image_is() {
    let pinned = format!("a@{}", Digest::of(b"manifest"));
    let mut table = table(&[]);
    table.want(set(&[&pinned], 1));
    begin(&mut table);
    done(&mut table, loaded(&pinned));
    tokio::time::advance(Duration::from_millis(1)).await;
    let image = HeldImage { engine_image_id: id(&pinned), ..held("x", &[]) };
    list(&mut table, &[image]);
    assert_eq!(state(&table, &pinned), ImageState::Present);
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[]);
    assert_eq!(state(&table, &pinned), ImageState::Gone);
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_back_has_failed_images_tried_at_once() {
    let mut table = table(&[]);
    table.want(set(&["a:1", "b:1"], 1));
    begin(&mut table);
    done(&mut table, loaded("a:1"));
    done(&mut table, failed("b:1", Fault::Away));
    table.engine_down("no such socket".into());
    assert!(!table.standing().is_complete());
    assert_eq!(state(&table, "a:1"), ImageState::Present, "nobody knows better");
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[held("a:1", &["a:1"])]);
    assert_eq!(begin(&mut table), ["b:1"]);
}

#[tokio::test(start_paused = true)]
async fn images_that_nobody_wants_are_listed_up_to_a_limit() {
    let names: Vec<String> = (0..MAX_UNWANTED + 10).map(|n| format!("image-{n:05}:1")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut table = table(&["wanted:1"]);
    list(&mut table, &[held("x", &names), held("y", &["wanted:1"])]);
    let unwanted = table.since(0).filter(|image| image.wanted_by == WantedBy::Nobody);
    assert_eq!(unwanted.count(), MAX_UNWANTED);
    assert_eq!(state(&table, "wanted:1"), ImageState::Present);
    let version = table.version();
    tokio::time::advance(Duration::from_millis(1)).await;
    list(&mut table, &[held("y", &["wanted:1"])]);
    assert!(version < table.version(), "readers look again");
    assert_eq!(table.since(0).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_wanted_any_more_is_not_looked_at_again() {
    let mut table = table(&["own:1"]);
    table.want(set(&["a:1", "b:1", "c:1"], 1));
    assert_eq!(begin(&mut table), ["a:1", "b:1", "c:1", "own:1"]);
    done(&mut table, failed("b:1", Fault::Away));
    table.want(set(&["c:1"], 2));
    assert_eq!(begin(&mut table), [""; 0], "those on their way are looked at again later");
    done(&mut table, failed("a:1", Fault::Away));
    assert_eq!(table.status(&name("a:1")), None);
    assert_eq!(table.status(&name("b:1")), None);
    done(&mut table, loaded("c:1"));
    assert_eq!(begin(&mut table), ["c:1"]);
    let own = table.status(&name("own:1")).unwrap();
    assert_eq!(own.wanted_by, WantedBy::Agent);
}

#[tokio::test(start_paused = true)]
async fn a_closed_gate_lets_only_those_begin_that_somebody_waits_for() {
    let mut table = table(&[]);
    table.want(set(&["a:1", "b:1"], 1));
    let (answer, mut answered) = oneshot::channel();
    let place = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
    table.ask(&name("b:1"), Ask { answer, _place: Arc::new(place) });
    assert_eq!(table.begin(Instant::now(), Gate::AsksOnly), [name("b:1")]);
    assert!(table.is_working());
    done(&mut table, loaded("b:1"));
    assert_eq!(answered.try_recv().unwrap().outcome, Outcome::Synced);
    assert!(!table.is_working());
    assert_eq!(begin(&mut table), ["a:1"]);
}

#[tokio::test(start_paused = true)]
async fn readers_see_what_changed_since_they_last_looked() {
    let mut table = table(&[]);
    table.want(set(&["a:1", "b:1"], 1));
    let version = table.version();
    assert_eq!(table.since(version).count(), 0);
    begin(&mut table);
    assert_eq!(table.since(version).count(), 2);
    let version = table.version();
    table.observe(&name("b:1"), &EventKind::Entered(Stage::Plan));
    let changed: Vec<_> = table.since(version).map(|image| image.reference.clone()).collect();
    assert_eq!(changed, [name("b:1")]);
}

#[test]
fn a_look_that_finds_nothing_to_do_and_bytes_that_move_are_changes_too() {
    let mut table = table(&[]);
    table.want(set(&["a"], 1));
    begin(&mut table);
    done(&mut table, loaded("a"));
    list(&mut table, &[held("a", &["a"])]);
    // The state stays as it is; the round does not.
    table.want(set(&["a"], 2));
    assert_eq!(begin(&mut table), ["a:latest"]);
    let before = table.version();
    done(&mut table, brought("a", Outcome::Skipped, None));
    let rounds: Vec<_> = table.since(before).map(|image| image.looked_round).collect();
    assert_eq!(rounds, [Some(2)]);

    table.want(set(&["a", "b"], 3));
    begin(&mut table);
    table.observe(&name("b"), &EventKind::Entered(Stage::Load));
    let before = table.version();
    table.observe(&name("b"), &EventKind::Moved { bytes_moved: 7 });
    let moved: Vec<_> = table.since(before).map(|image| image.bytes_moved).collect();
    assert_eq!(moved, [7]);
}
