//! Totals and lines of reports.

use transfer::StoreKind;

use super::*;

fn image(reference: &str, outcome: Outcome, bytes_moved: u64, bytes_saved: u64) -> ImageReport {
    ImageReport {
        outcome,
        proven: outcome != Outcome::Failed,
        bytes_moved,
        bytes_saved,
        stages: vec![(Stage::Prove, 0.25), (Stage::Resolve, 0.001_26)],
        error: (outcome == Outcome::Failed).then(|| "no such image".to_owned()),
        ..unreached(&reference.parse().unwrap(), "")
    }
}

fn engine() -> EngineInfo {
    EngineInfo {
        engine: "docker 28.5.2".to_owned(),
        store: StoreKind::Containerd,
        driver: "overlayfs".to_owned(),
        id: "x".to_owned(),
    }
}

fn range(name: &str, images: Vec<ImageReport>) -> RangeReport {
    RangeReport {
        range: name.parse().unwrap(),
        engine: Some(engine()),
        provision: Some(Provision::Made),
        stages: vec![(RangeStage::Create, 1.0), (RangeStage::Sync, 2.0)],
        images,
        error: None,
    }
}

#[test]
fn a_line_has_the_keys_that_scripts_rely_on_in_their_order() {
    let report = range("a", vec![image("python:3", Outcome::Synced, 10, 20)]);
    let lines: Vec<String> =
        report.lines().map(|line| serde_json::to_string(&line).unwrap()).collect();
    assert_eq!(
        lines,
        [
            r#"{"range":"a","engine":"docker 28.5.2","store":"containerd","image":"python:3","outcome":"loaded","proven":true,"bytes_moved":10,"bytes_saved":20,"seconds":0.251,"error":null}"#
        ]
    );
}

#[test]
fn a_range_that_failed_fails_each_image_with_its_reason() {
    let reference: Reference = "python:3".parse().unwrap();
    let report = RangeReport {
        engine: None,
        error: Some("no space".to_owned()),
        ..range("a", vec![unreached(&reference, "no space")])
    };
    let lines: Vec<String> =
        report.lines().map(|line| serde_json::to_string(&line).unwrap()).collect();
    assert_eq!(
        lines,
        [
            r#"{"range":"a","engine":null,"store":null,"image":"python:3","outcome":"failed","proven":false,"bytes_moved":0,"bytes_saved":0,"seconds":0.0,"error":"no space"}"#
        ]
    );
    assert!(!report.is_whole());
}

#[test]
fn totals_count_ranges_images_bytes_and_seconds() {
    let failed = RangeReport { error: Some("no space".to_owned()), ..range("b", Vec::new()) };
    let images = vec![
        image("a:1", Outcome::Synced, 10, 20),
        image("a:2", Outcome::Skipped, 0, 30),
        image("a:3", Outcome::Failed, 5, 0),
    ];
    let report = Report { ranges: vec![range("a", images), failed] };
    let totals = report.totals();
    assert_eq!((totals.ranges_up, totals.ranges_failed), (1, 1));
    assert_eq!((totals.synced, totals.skipped, totals.failed), (1, 1, 1));
    assert_eq!((totals.bytes_moved, totals.bytes_saved), (15, 50));
    assert_eq!(totals.range_seconds[&RangeStage::Create], 2.0);
    assert_eq!(totals.image_seconds[0].0, Stage::Resolve, "stages are in their order");
    assert_eq!(totals.image_seconds[1], (Stage::Prove, 0.75));
    assert!(!report.is_whole());
}

#[test]
fn a_report_is_whole_when_nothing_failed() {
    let whole = range("a", vec![image("a:1", Outcome::Skipped, 0, 1)]);
    assert!(Report { ranges: vec![whole] }.is_whole());
    assert!(Report::default().is_whole(), "nothing was asked for, and nothing is missing");
}
