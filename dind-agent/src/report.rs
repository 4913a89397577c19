//! Results on stdout: a table for people, or one JSON object a line for programs.

use serde::Serialize;
use transfer::event::ImageReport;
use transfer::{EngineInfo, Outcome, StoreKind};

/// The result for one image, in the words that every Longshore command uses.
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

/// Columns for people; errors beneath the image that they belong to.
pub(crate) fn table(lines: &[Line<'_>]) -> String {
    let header = ["IMAGE", "OUTCOME", "PROVEN", "MOVED", "NOT MOVED", "SECONDS"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(lines.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..6).filter_map(width).collect();
    let mut text = String::new();
    for (position, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
        let error = position.checked_sub(1).and_then(|line| lines[line].error);
        if let Some(error) = error {
            text += &format!("  {error}\n");
        }
    }
    text
}

fn row(line: &Line<'_>) -> [String; 6] {
    let outcome = match line.outcome {
        Outcome::Synced => "synced",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
    };
    [
        line.image.clone(),
        outcome.into(),
        if line.proven { "yes" } else { "no" }.into(),
        bytes(line.bytes_moved),
        bytes(line.bytes_saved),
        format!("{:.2}", line.seconds),
    ]
}

/// A size for people, in the unit that leaves one to four digits before the point.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut scale = 1024_u64;
    let mut unit = 0;
    while unit + 1 < UNITS.len() && 1024 <= count / scale {
        scale *= 1024;
        unit += 1;
    }
    let tenths = u128::from(count) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
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
             \"image\":\"postgres:16\",\"outcome\":\"synced\",\"proven\":true,\
             \"bytes_moved\":5242880,\"bytes_saved\":1500,\"seconds\":1.25,\"error\":null}\n"
        );
    }

    #[test]
    fn the_table_tells_errors_beneath_their_image() {
        let (engine, reports) =
            (engine(), [report(Outcome::Synced, None), report(Outcome::Failed, Some("no host"))]);
        assert_eq!(
            table(&lines("lab-1", &engine, &reports)),
            "IMAGE        OUTCOME  PROVEN  MOVED    NOT MOVED  SECONDS\n\
             postgres:16  synced   yes     5.0 MiB  1.4 KiB    1.25\n\
             postgres:16  failed   no      5.0 MiB  1.4 KiB    1.25\n  \
             no host\n"
        );
    }

    #[test]
    fn sizes_are_shown_in_powers_of_1024() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 30) + (1 << 29), "1.5 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
