//! Output of a run: JSON lines, a table, a file with every figure, and plots.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::machine::Machine;
use super::plot;
use super::row::{Bound, Row, short};

/// The file with the machine, and each row with the figures behind its medians.
const RESULTS: &str = "bench.json";

/// Markers around the table in README.md.
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Prints one JSON object per line.
pub(super) fn print_lines(rows: &[Row]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for row in rows {
        writeln!(stdout, "{}", serde_json::to_string(row)?).context("writing a result")?;
    }
    stdout.flush().context("writing a result")
}

/// Writes all files into `folder`.
pub(super) fn write(folder: &Path, machine: &Machine, rows: &[Row]) -> Result<()> {
    #[derive(Serialize)]
    struct Whole<'a> {
        machine: &'a Machine,
        rows: &'a [Row],
    }
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let whole = serde_json::to_string_pretty(&Whole { machine, rows })? + "\n";
    let table = format!("{}\n\n{}\n", table(rows), machine.sentence());
    for (name, text) in [
        (RESULTS, whole),
        ("table.md", table),
        ("seconds.svg", plot::seconds(rows)),
        ("goals.svg", plot::goals(rows)),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The rows as a Markdown table.
pub(super) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| measure | store | ours | peers | ratio | goal | met |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let peers: Vec<String> =
            row.peers.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        let ours = row.ours.map_or_else(
            || format!("not measured: {}", row.note.as_deref().unwrap_or("no reason given")),
            |ours| format!("{} {}", short(ours), row.unit),
        );
        let store = row.store.as_deref().unwrap_or("");
        let ratio = row.ratio.map(|ratio| format!("{} ×", short(ratio))).unwrap_or_default();
        text.push_str(&format!(
            "| {} | {store} | {} | {} | {ratio} | {} | {} |\n",
            row.measure,
            cell(&ours),
            cell(&peers.join("; ")),
            cell(&goal(row)),
            row.met.map_or("", |met| if met { "yes" } else { "**no**" })
        ));
    }
    text
}

/// The goal in words; empty without one.
fn goal(row: &Row) -> String {
    let Some(goal) = row.goal else { return String::new() };
    let sign = match row.bound {
        Bound::Most => "≤",
        Bound::Least => "≥",
    };
    match (&row.against, row.ratio) {
        (Some(peer), _) => format!("{sign} {goal} × {peer}"),
        (None, Some(_)) => format!("{sign} {goal} ×"),
        (None, None) => format!("{sign} {goal} {}", row.unit),
    }
}

/// Escapes text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writes the table between the markers of the file `readme`.
pub(super) fn write_readme(readme: &Path, machine: &Machine, rows: &[Row]) -> Result<()> {
    let text =
        fs::read_to_string(readme).with_context(|| format!("reading {}", readme.display()))?;
    let inner = format!("{}\n{}", table(rows), machine.sentence());
    let text = between(&text, &inner)
        .with_context(|| format!("{} has no lines {BEGIN} and {END}", readme.display()))?;
    fs::write(readme, text).with_context(|| format!("writing {}", readme.display()))
}

/// Fails if the file `readme` lacks the markers for the table.
pub(super) fn check_readme(readme: &Path) -> Result<()> {
    let text =
        fs::read_to_string(readme).with_context(|| format!("reading {}", readme.display()))?;
    between(&text, "")
        .map(|_| ())
        .with_context(|| format!("{} has no lines {BEGIN} and {END}", readme.display()))
}

fn between(text: &str, inner: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{inner}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::super::row::Sample;
    use super::*;

    fn cold() -> Row {
        Row::of("cold-1", Some("overlay2"), "s", &[Sample::of(16.25)]).goal_against(
            "save | load",
            &[Sample::of(42.0)],
            Bound::Most,
            0.5,
        )
    }

    #[test]
    fn a_line_of_the_table_has_the_figure_and_its_goal() {
        let text = table(&[
            cold(),
            Row::failed("seed", None, "no room"),
            Row::of("rss", None, "MiB", &[Sample::of(140.0)]).goal(Bound::Most, 128.0),
        ]);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| cold-1 | overlay2 | 16.2 s | save \\| load 42.0 | 0.387 × | ≤ 0.5 × save \\| load | yes |",
                "| seed |  | not measured: no room |  |  |  |  |",
                "| rss |  | 140 MiB |  |  | ≤ 128 MiB | **no** |",
            ]
        );
    }

    #[test]
    fn only_the_text_between_the_markers_is_replaced() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let expected = format!("a\n{BEGIN}\nnew\n{END}\nb\n");
        assert_eq!(between(&text, "new").as_deref(), Some(expected.as_str()));
        assert_eq!(between(&expected, "new").as_deref(), Some(expected.as_str()));
        assert_eq!(between("nothing", "new"), None);
    }

    #[test]
    fn every_file_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine {
            cpu: "x".to_owned(),
            cores: 2,
            memory_bytes: 1 << 30,
            kernel: "6".to_owned(),
            file_system: "ext4".to_owned(),
            system: "Debian".to_owned(),
            engines: std::collections::BTreeMap::new(),
            load: 0.1,
            time: 1,
        };
        write(folder.path(), &machine, &[cold()]).unwrap();
        let whole = fs::read(folder.path().join(RESULTS)).unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(whole["rows"][0]["raw"]["save | load"], serde_json::json!([42.0]));
        assert_eq!(whole["machine"]["cores"], 2);
        for name in ["table.md", "seconds.svg", "goals.svg"] {
            assert!(0 < fs::metadata(folder.path().join(name)).unwrap().len(), "{name}");
        }
    }
}
