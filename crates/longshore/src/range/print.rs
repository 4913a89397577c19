//! Results of the verbs for people, as text.

use std::time::Duration;

use process::output::{Table, count, printable, seconds, short_digest, size, time, yes_no};
use range::{EngineInfo, RangeCheck, RangeReport, RangeStatus, Reference, Report, Totals};

/// Results per range and image, each failure once, and the sums.
#[must_use]
pub fn reports(report: &Report, wall: Duration) -> String {
    let mut text = report_table(report).to_string();
    for (what, error) in failures(report) {
        text += &format!("{what}: {error}\n");
    }
    text + &totals(&report.totals(), wall) + "\n"
}

/// State of ranges, an image a line.
pub(super) fn statuses(statuses: &[RangeStatus]) -> String {
    let mut table = Table::new(["RANGE", "STATE", "ENGINE", "STORE", "IMAGE", "ID", "PROVEN"]);
    for status in statuses {
        let (engine, store) = engine_words(status.engine.as_ref());
        let head = [status.range.to_string(), status.state.to_string(), engine, store];
        let images = status.images.iter().map(|image| {
            let id = short_digest(&image.engine_image_id.to_string());
            [name(image.reference.as_ref()), id, yes_no(image.proven).to_owned()]
        });
        let none = status.images.is_empty().then(|| [(); 3].map(|()| String::new()));
        for (position, [name, id, proven]) in images.chain(none).enumerate() {
            let [range, state, engine, store] =
                if position == 0 { head.clone() } else { Default::default() };
            table.row([range, state, engine, store, name, id, proven]);
        }
    }
    let reasons = statuses.iter().filter_map(|status| Some((status, status.reason.as_ref()?)));
    format!("{table}{}", lines(reasons.map(|(status, reason)| (&status.range, reason))))
}

/// How far ranges are in step with what is wanted, a range a line.
pub(super) fn standings(statuses: &[RangeStatus]) -> String {
    let mut table = Table::new([
        "RANGE",
        "STATE",
        "ENGINE",
        "STORE",
        "HELD>",
        "WANTED>",
        "IN STEP",
        "RESTARTS>",
        "LABELS",
    ]);
    for status in statuses {
        let (engine, store) = engine_words(status.engine.as_ref());
        let [wanted, in_step, restarts] = match &status.step {
            Some(step) => [
                step.wanted.to_string(),
                yes_no(step.in_step).to_owned(),
                step.engine_restarts.to_string(),
            ],
            None => [(); 3].map(|()| "-".to_owned()),
        };
        let labels = status.labels.as_map().iter().map(|(key, value)| format!("{key}={value}"));
        table.row([
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
    let reasons = statuses.iter().flat_map(|status| {
        let last_error = status.step.as_ref().and_then(|step| step.last_error.as_ref());
        let reasons = status.reason.iter().chain(last_error);
        reasons.map(move |reason| (&status.range, reason))
    });
    format!("{table}{}", lines(reasons))
}

/// Findings of a check per range and image, each problem below.
pub(super) fn checks(checks: &[RangeCheck]) -> String {
    let mut table = Table::new(["RANGE", "IMAGE", "ID", "WELL", "PROVEN", "FILES>", "READ>"]);
    let mut problems = String::new();
    for RangeCheck { range, images, error } in checks {
        for image in images {
            let id =
                image.engine_image_id.map_or("-".to_owned(), |id| short_digest(&id.to_string()));
            let name = name(image.reference.as_ref());
            table.row([
                range.to_string(),
                name.clone(),
                id,
                yes_no(image.is_well()).to_owned(),
                yes_no(image.proven).to_owned(),
                image.files.to_string(),
                size(image.bytes_read),
            ]);
            let more =
                (0 < image.more_problems).then(|| format!("{} more problems", image.more_problems));
            let of = format!("{range} {name}");
            problems += &lines(image.problems.iter().chain(&more).map(|problem| (&of, problem)));
        }
        problems += &lines(error.iter().map(|error| (range, error)));
    }
    format!("{table}{problems}")
}

fn report_table(report: &Report) -> Table<9> {
    let mut table = Table::new([
        "RANGE",
        "ENGINE",
        "STORE",
        "IMAGE",
        "OUTCOME",
        "PROVEN",
        "MOVED>",
        "NOT MOVED>",
        "TIME>",
    ]);
    for range in &report.ranges {
        let (engine, store) = engine_words(range.engine.as_ref());
        if range.images.is_empty() {
            let outcome = if range.error.is_some() { "failed" } else { "up" };
            let mut row = [(); 9].map(|()| String::new());
            (row[0], row[1], row[2], row[4]) =
                (range.range.to_string(), engine, store, outcome.to_owned());
            table.row(row);
            continue;
        }
        for image in &range.images {
            table.row([
                range.range.to_string(),
                engine.clone(),
                store.clone(),
                image.reference.to_string(),
                image.outcome.to_string(),
                yes_no(image.proven).to_owned(),
                size(image.bytes_moved),
                size(image.bytes_saved),
                seconds(image.seconds()),
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
        "{} up, {} failed; images: {} loaded, {} already there, {} failed; {} moved, {} not moved; {}",
        count(totals.ranges_up, "range"),
        totals.ranges_failed,
        totals.synced,
        totals.skipped,
        totals.failed,
        size(totals.bytes_moved),
        size(totals.bytes_saved),
        time(wall)
    );
    let ranges =
        totals.range_seconds.iter().map(|(stage, sum)| format!("{stage} {}", seconds(*sum)));
    let images = totals
        .image_seconds
        .iter()
        .map(|(stage, sum)| format!("{} {}", format!("{stage:?}").to_lowercase(), seconds(*sum)));
    let (ranges, images): (Vec<_>, Vec<_>) = (ranges.collect(), images.collect());
    if !ranges.is_empty() {
        text.push_str(&format!("\ntime in all ranges together: {}", ranges.join(", ")));
    }
    if !images.is_empty() {
        text.push_str(&format!("; of all images: {}", images.join(", ")));
    }
    text
}

/// Result of a range, on one line.
pub(super) fn summary(report: &RangeReport) -> String {
    use range::{ImageReport, Outcome, Provision};
    if let Some(error) = &report.error {
        return format!("{}: failed: {error}", report.range);
    }
    let provision = match report.provision {
        Some(Provision::Kept) => "kept, ",
        Some(Provision::Started) => "started, ",
        Some(Provision::Remade) => "made again, ",
        Some(Provision::Made) => "made, ",
        Some(Provision::Cloned) => "cloned, ",
        None => "",
    };
    let engine = report.engine.as_ref().map_or("engine unknown", |engine| engine.engine.as_str());
    let of = |outcome| report.images.iter().filter(|image| image.outcome == outcome).count();
    let sum = |bytes: fn(&ImageReport) -> u64| report.images.iter().map(bytes).sum::<u64>();
    let spent = report.stages.iter().fold(0.0, |sum, (_, seconds)| sum + seconds);
    format!(
        "{}: {provision}{engine}; {} loaded, {} already there, {} failed; {} moved, {} not; {}",
        report.range,
        of(Outcome::Synced),
        of(Outcome::Skipped),
        of(Outcome::Failed),
        size(sum(|image| image.bytes_moved)),
        size(sum(|image| image.bytes_saved)),
        seconds(spent)
    )
}

/// Texts below a table, each after what it is about.
fn lines<W: ToString, T: AsRef<str>>(texts: impl Iterator<Item = (W, T)>) -> String {
    let line =
        |(what, text): (W, T)| format!("{}: {}\n", what.to_string(), printable(text.as_ref()));
    texts.map(line).collect()
}

fn name(reference: Option<&Reference>) -> String {
    reference.map_or_else(|| "<none>".to_owned(), ToString::to_string)
}

/// An engine and its store in two words: `docker 28.5.2`, `containerd (overlayfs)`.
fn engine_words(engine: Option<&EngineInfo>) -> (String, String) {
    match engine {
        Some(engine) => (engine.engine.clone(), format!("{} ({})", engine.store, engine.driver)),
        None => ("-".to_owned(), "-".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use range::{ImageReport, Outcome, Provision, RangeStage, Stage, StoreKind};

    use super::*;

    fn engine() -> EngineInfo {
        EngineInfo {
            engine: "docker 28.5.2".to_owned(),
            store: StoreKind::Containerd,
            driver: "overlayfs".to_owned(),
            id: String::new(),
        }
    }

    fn report() -> Report {
        let image = |reference: &str, error: Option<&str>| ImageReport {
            reference: reference.parse().unwrap(),
            config_digest: None,
            engine_image_id: None,
            outcome: if error.is_some() { Outcome::Failed } else { Outcome::Synced },
            proven: error.is_none(),
            bytes_moved: 1536,
            bytes_saved: 2 << 20,
            stages: vec![(Stage::Load, 1.25)],
            error: error.map(str::to_owned),
        };
        let there = ImageReport { outcome: Outcome::Skipped, bytes_moved: 0, ..image("y:1", None) };
        let range = |name: &str, error: Option<&str>, images| RangeReport {
            range: name.parse().unwrap(),
            engine: error.is_none().then(engine),
            provision: None,
            stages: vec![(RangeStage::Sync, 2.0)],
            images,
            error: error.map(str::to_owned),
        };
        Report {
            ranges: vec![
                range(
                    "a",
                    None,
                    vec![image("x:1", None), there, image("x:2", Some("not on the host"))],
                ),
                range("b", Some("no space"), vec![image("x:1", Some("no space"))]),
            ],
        }
    }

    #[test]
    fn a_report_has_a_line_for_each_image_each_failure_once_and_the_sums() {
        assert_eq!(
            reports(&report(), Duration::from_millis(61_500)),
            "RANGE  ENGINE         STORE                   IMAGE  OUTCOME        PROVEN    MOVED  NOT MOVED   TIME\n\
             a      docker 28.5.2  containerd (overlayfs)  x:1    loaded         yes     1.5 KiB    2.0 MiB  1.3 s\n\
             a      docker 28.5.2  containerd (overlayfs)  y:1    already there  yes         0 B    2.0 MiB  1.3 s\n\
             a      docker 28.5.2  containerd (overlayfs)  x:2    failed         no      1.5 KiB    2.0 MiB  1.3 s\n\
             b      -              -                       x:1    failed         no      1.5 KiB    2.0 MiB  1.3 s\n\
             a x:2: not on the host\n\
             b: no space\n\
             1 range up, 1 failed; images: 1 loaded, 1 already there, 2 failed; 4.5 KiB moved, 8.0 MiB not moved; 1 min 1 s\n\
             time in all ranges together: sync 4.0 s; of all images: load 5.0 s\n"
        );
    }

    #[test]
    fn totals_leave_out_stages_that_nobody_entered() {
        let totals = Totals {
            ranges_up: 2,
            range_seconds: BTreeMap::from([(RangeStage::Create, 0.25)]),
            ..Totals::default()
        };
        assert_eq!(
            super::totals(&totals, Duration::ZERO),
            "2 ranges up, 0 failed; images: 0 loaded, 0 already there, 0 failed; 0 B moved, 0 B not moved; 0.0 s\n\
             time in all ranges together: create 0.3 s"
        );
    }

    #[test]
    fn a_range_is_summed_up_on_one_line() {
        let first = report().ranges.remove(0);
        let made = RangeReport { provision: Some(Provision::Made), ..first };
        assert_eq!(
            summary(&made),
            "a: made, docker 28.5.2; 1 loaded, 1 already there, 1 failed; 3.0 KiB moved, 6.0 MiB not; 2.0 s"
        );
        let failed = RangeReport { error: Some("no space".to_owned()), ..made };
        assert_eq!(summary(&failed), "a: failed: no space");
    }
}
