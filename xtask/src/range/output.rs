//! Results on stdout: a table for people, or one JSON object a line.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use range::{Outcome, RangeCheck, RangeStatus, Report, Totals};
use serde::Serialize;

use crate::text::{count, size};

/// What is said where nothing is.
const NO_RANGES: &str = "there are no ranges; `cargo xtask range up --help` tells how to make some";

/// One object a line.
///
/// # Errors
/// When stdout cannot be written.
pub(super) fn json_lines<T: Serialize>(lines: impl Iterator<Item = T>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        let line = serde_json::to_string(&line).context("writing a result as JSON")?;
        writeln!(stdout, "{line}").context("writing a result")?;
    }
    Ok(())
}

/// What was done, per range and image, and in sum.
pub(crate) fn reports(report: &Report, wall: Duration) {
    if report.ranges.is_empty() {
        println!("{NO_RANGES}");
        return;
    }
    println!("{}", report_table(report));
    for (what, error) in failures(report) {
        println!("{what}: {error}");
    }
    println!("{}", totals(&report.totals(), wall));
}

/// How ranges are.
pub(super) fn statuses(statuses: &[RangeStatus]) {
    if statuses.is_empty() {
        println!("{NO_RANGES}");
        return;
    }
    let mut table = table(&["RANGE", "STATE", "ENGINE", "STORE", "IMAGE", "ID", "PROVEN"]);
    for status in statuses {
        let (engine, store) = engine_words(status.engine.as_ref());
        let head = [status.range.to_string(), status.state.to_string(), engine, store];
        if status.images.is_empty() {
            table.add_row(head.iter().cloned().chain([
                String::new(),
                String::new(),
                String::new(),
            ]));
        }
        for (position, image) in status.images.iter().enumerate() {
            let head =
                head.iter().map(|word| if position == 0 { word.clone() } else { String::new() });
            let name = image.reference.as_ref().map_or("<none>".to_owned(), ToString::to_string);
            let id = short(&image.engine_image_id.to_string());
            table.add_row(head.chain([name, id, yes(image.proven)]));
        }
    }
    println!("{table}");
    for status in statuses {
        if let Some(reason) = &status.reason {
            println!("{}: {reason}", status.range);
        }
    }
}

/// How ranges stand to what is wanted.
pub(super) fn standings(statuses: &[RangeStatus]) {
    if statuses.is_empty() {
        println!("{NO_RANGES}");
        return;
    }
    println!("{}", standing_table(statuses));
    for status in statuses {
        let last_error = status.step.as_ref().and_then(|step| step.last_error.as_ref());
        for what in status.reason.iter().chain(last_error) {
            println!("{}: {what}", status.range);
        }
    }
}

fn standing_table(statuses: &[RangeStatus]) -> Table {
    let mut table = table(&[
        "RANGE", "STATE", "ENGINE", "STORE", "HELD", "WANTED", "IN STEP", "RESTARTS", "LABELS",
    ]);
    for status in statuses {
        let (engine, store) = engine_words(status.engine.as_ref());
        let [wanted, in_step, restarts] = match &status.step {
            Some(step) => {
                [step.wanted.to_string(), yes(step.in_step), step.engine_restarts.to_string()]
            }
            None => [(); 3].map(|()| "-".to_owned()),
        };
        let labels = status.labels.as_map().iter().map(|(key, value)| format!("{key}={value}"));
        table.add_row([
            status.range.to_string(),
            status.state.to_string(),
            engine,
            store,
            status.images.len().to_string(),
            wanted,
            in_step,
            restarts,
            labels.collect::<Vec<_>>().join(","),
        ]);
    }
    table
}

/// What was found of images.
pub(super) fn checks(checks: &[RangeCheck]) {
    if checks.is_empty() {
        println!("{NO_RANGES}");
        return;
    }
    println!("{}", check_table(checks));
    for check in checks {
        for image in check.images.iter().filter(|image| !image.is_well()) {
            let name = image.reference.as_ref().map_or("<none>".to_owned(), ToString::to_string);
            for problem in &image.problems {
                println!("{} {name}: {problem}", check.range);
            }
            if 0 < image.more_problems {
                println!("{} {name}: {} more problems", check.range, image.more_problems);
            }
        }
        if let Some(error) = &check.error {
            println!("{}: {error}", check.range);
        }
    }
}

fn check_table(checks: &[RangeCheck]) -> Table {
    let mut table = table(&["RANGE", "IMAGE", "ID", "WELL", "PROVEN", "FILES", "READ"]);
    for check in checks {
        for image in &check.images {
            let id = image.engine_image_id.map_or("-".to_owned(), |id| short(&id.to_string()));
            table.add_row([
                check.range.to_string(),
                image.reference.as_ref().map_or("<none>".to_owned(), ToString::to_string),
                id,
                yes(image.is_well()),
                yes(image.proven),
                image.files.to_string(),
                size(image.bytes_read),
            ]);
        }
    }
    table
}

/// The beginning of a digest, enough to tell one from another.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}

fn report_table(report: &Report) -> Table {
    let mut table = table(&[
        "RANGE",
        "ENGINE",
        "STORE",
        "IMAGE",
        "OUTCOME",
        "PROVEN",
        "MOVED",
        "NOT MOVED",
        "SECONDS",
    ]);
    right(&mut table, 6..9);
    for range in &report.ranges {
        let (engine, store) = engine_words(range.engine.as_ref());
        if range.images.is_empty() {
            let outcome = if range.error.is_some() { "failed" } else { "up" };
            let words = [range.range.to_string(), engine, store, String::new(), outcome.to_owned()];
            table.add_row(words);
            continue;
        }
        for image in &range.images {
            table.add_row([
                range.range.to_string(),
                engine.clone(),
                store.clone(),
                image.reference.to_string(),
                outcome(image.outcome).to_owned(),
                yes(image.proven),
                size(image.bytes_moved),
                size(image.bytes_saved),
                format!("{:.1}", image.seconds()),
            ]);
        }
    }
    table
}

/// Each failure once, and of what: a range that failed has failed all its images for the same
/// reason.
fn failures(report: &Report) -> Vec<(String, &str)> {
    let mut failures = Vec::new();
    for range in &report.ranges {
        if let Some(error) = &range.error {
            failures.push((range.range.to_string(), error.as_str()));
            continue;
        }
        for image in &range.images {
            let what = || format!("{} {}", range.range, image.reference);
            failures.extend(image.error.as_deref().map(|error| (what(), error)));
        }
    }
    failures
}

/// The sums as two lines.
fn totals(totals: &Totals, wall: Duration) -> String {
    let mut text = format!(
        "{} up, {} failed; images: {} synced, {} skipped, {} failed; {} moved, {} not moved; {:.1} s",
        count(totals.ranges_up, "range"),
        totals.ranges_failed,
        totals.synced,
        totals.skipped,
        totals.failed,
        size(totals.bytes_moved),
        size(totals.bytes_saved),
        wall.as_secs_f64()
    );
    let ranges =
        totals.range_seconds.iter().map(|(stage, seconds)| format!("{stage} {seconds:.1}"));
    let images = totals
        .image_seconds
        .iter()
        .map(|(stage, seconds)| format!("{} {seconds:.1}", format!("{stage:?}").to_lowercase()));
    let (ranges, images): (Vec<_>, Vec<_>) = (ranges.collect(), images.collect());
    if !ranges.is_empty() {
        text.push_str(&format!("\nseconds in all ranges together: {}", ranges.join(", ")));
    }
    if !images.is_empty() {
        text.push_str(&format!("; of all images: {}", images.join(", ")));
    }
    text
}

/// An engine and its store in two words: `docker 28.5.2`, `containerd (overlayfs)`.
fn engine_words(engine: Option<&range::EngineInfo>) -> (String, String) {
    match engine {
        Some(engine) => (engine.engine.clone(), format!("{} ({})", engine.store, engine.driver)),
        None => ("-".to_owned(), "-".to_owned()),
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Synced => "synced",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

/// Numbers: these columns end at one edge.
pub(super) fn right(table: &mut Table, columns: std::ops::Range<usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Words in columns, without lines around them, as other container tools print theirs.
pub(super) fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use range::{EngineInfo, ImageReport, RangeReport, RangeStage, Stage, StoreKind};

    use super::*;

    fn report() -> Report {
        let image = |reference: &str, error: Option<&str>| ImageReport {
            reference: reference.parse().unwrap(),
            config_digest: None,
            engine_image_id: None,
            outcome: if error.is_some() { Outcome::Failed } else { Outcome::Synced },
            proven: error.is_none(),
            bytes_moved: 1500,
            bytes_saved: 2_000_000,
            stages: vec![(Stage::Load, 1.25)],
            error: error.map(str::to_owned),
        };
        let range = |name: &str, error: Option<&str>, images| RangeReport {
            range: name.parse().unwrap(),
            engine: error.is_none().then(|| EngineInfo {
                engine: "docker 28.5.2".to_owned(),
                store: StoreKind::Containerd,
                driver: "overlayfs".to_owned(),
                id: String::new(),
            }),
            provision: None,
            stages: vec![(RangeStage::Sync, 2.0)],
            images,
            error: error.map(str::to_owned),
        };
        Report {
            ranges: vec![
                range("a", None, vec![image("x:1", None), image("x:2", Some("not on the host"))]),
                range("b", Some("no space"), vec![image("x:1", Some("no space"))]),
            ],
        }
    }

    #[test]
    fn the_table_has_a_line_for_each_range_and_image() {
        let table = report_table(&report()).to_string();
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            [
                "a",
                "docker",
                "28.5.2",
                "containerd",
                "(overlayfs)",
                "x:1",
                "synced",
                "yes",
                "1.5",
                "kB",
                "2.0",
                "MB",
                "1.2"
            ]
        );
        assert_eq!(lines[3][..6], ["b", "-", "-", "x:1", "failed", "no"]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_range_that_failed_is_told_once() {
        let report = report();
        let told: Vec<_> = failures(&report);
        assert_eq!(told, [("a x:2".to_owned(), "not on the host"), ("b".to_owned(), "no space")]);
    }

    #[test]
    fn totals_say_all_that_was_counted() {
        let totals = Totals {
            ranges_up: 1,
            synced: 2,
            bytes_moved: 1500,
            range_seconds: BTreeMap::from([(RangeStage::Create, 0.25), (RangeStage::Sync, 2.0)]),
            image_seconds: vec![(Stage::Load, 1.0)],
            ..Totals::default()
        };
        assert_eq!(
            super::totals(&totals, Duration::from_secs(3)),
            "1 range up, 0 failed; images: 2 synced, 0 skipped, 0 failed; 1.5 kB moved, 0 B not moved; 3.0 s\n\
             seconds in all ranges together: create 0.2, sync 2.0; of all images: load 1.0"
        );
    }
}
