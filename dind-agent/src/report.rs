//! Results of a sync for stdout: a table for people, or one JSON object a line for programs.

use process::output::{Table, printable, seconds, size, yes_no};
use serde::Serialize;
use transfer::event::ImageReport;
use transfer::{EngineInfo, Outcome, StoreKind};

/// The result for one image, with the keys that every Longshore command uses.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    range: &'a str,
    engine: &'a str,
    store: StoreKind,
    image: String,
    outcome: Outcome,
    proven: bool,
    bytes_moved: u64,
    bytes_saved: u64,
    seconds: f64,
    error: Option<&'a str>,
}

/// The results of one range's sync, in the order of the reports.
pub(crate) fn lines<'a>(
    range: &'a str,
    engine: &'a EngineInfo,
    reports: &'a [ImageReport],
) -> Vec<Line<'a>> {
    let line = |report: &'a ImageReport| Line {
        range,
        engine: &engine.engine,
        store: engine.store,
        image: report.reference.to_string(),
        outcome: report.outcome,
        proven: report.proven,
        bytes_moved: report.bytes_moved,
        bytes_saved: report.bytes_saved,
        seconds: milliseconds(report.seconds()),
        error: report.error.as_deref(),
    };
    reports.iter().map(line).collect()
}

/// One JSON object a line.
///
/// # Errors
/// Never in practice: every value has a JSON form.
pub(crate) fn json(lines: &[Line<'_>]) -> serde_json::Result<String> {
    lines.iter().map(|line| Ok(serde_json::to_string(line)? + "\n")).collect()
}

/// A table for people; below it, each error after the image that it belongs to.
pub(crate) fn table(lines: &[Line<'_>]) -> String {
    let mut table = Table::new(["IMAGE", "OUTCOME", "PROVEN", "MOVED>", "NOT MOVED>", "TIME>"]);
    lines.iter().for_each(|line| table.row(row(line)));
    let errors = lines.iter().filter_map(|line| Some((&line.image, line.error?)));
    let errors = errors.map(|(image, error)| format!("{image}: {}\n", printable(error)));
    format!("{table}{}", errors.collect::<String>())
}

fn row(line: &Line<'_>) -> [String; 6] {
    [
        line.image.clone(),
        line.outcome.to_string(),
        yes_no(line.proven).into(),
        size(line.bytes_moved),
        size(line.bytes_saved),
        seconds(line.seconds),
    ]
}

fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use transfer::Stage;

    use super::*;

    fn report(outcome: Outcome, error: Option<&str>) -> ImageReport {
        ImageReport {
            reference: "postgres:16".parse().unwrap(),
            config_digest: None,
            engine_image_id: None,
            outcome,
            proven: error.is_none(),
            bytes_moved: 5 << 20,
            bytes_saved: 1500,
            stages: vec![(Stage::Resolve, 0.25), (Stage::Load, 1.000_49)],
            error: error.map(Into::into),
        }
    }

    fn engine() -> EngineInfo {
        EngineInfo {
            engine: "docker 28.5.2".into(),
            store: StoreKind::Containerd,
            driver: "overlayfs".into(),
            id: String::new(),
        }
    }

    #[test]
    fn a_json_line_has_the_keys_that_scripts_rely_on() {
        let (engine, reports) = (engine(), [report(Outcome::Synced, None)]);
        assert_eq!(
            json(&lines("lab-1", &engine, &reports)).unwrap(),
            "{\"range\":\"lab-1\",\"engine\":\"docker 28.5.2\",\"store\":\"containerd\",\
             \"image\":\"postgres:16\",\"outcome\":\"loaded\",\"proven\":true,\
             \"bytes_moved\":5242880,\"bytes_saved\":1500,\"seconds\":1.25,\"error\":null}\n"
        );
    }

    #[test]
    fn errors_stand_below_the_table_with_their_image() {
        let (engine, reports) =
            (engine(), [report(Outcome::Synced, None), report(Outcome::Failed, Some("no host"))]);
        assert_eq!(
            table(&lines("lab-1", &engine, &reports)),
            "IMAGE        OUTCOME  PROVEN    MOVED  NOT MOVED   TIME\n\
             postgres:16  loaded   yes     5.0 MiB    1.4 KiB  1.3 s\n\
             postgres:16  failed   no      5.0 MiB    1.4 KiB  1.3 s\n\
             postgres:16: no host\n"
        );
    }
}
