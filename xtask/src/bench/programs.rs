//! Measures that are programs in `benches/`: runs them and reads their output.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::context::Bench;
use super::row::{Bound, Row};

/// The workspace's optimised profile.
const PROFILE: &str = "agent";

/// Measures the wire, compared with raw sockets.
pub(super) async fn wire(bench: &Bench) -> Result<Vec<Row>> {
    let rounds = bench.rounds.max(5).to_string();
    let arguments = ["bench", "--bench", "wire", "--", "--format", "json", "--rounds", &rounds];
    rows(bench, "wire", &arguments).await
}

/// Measures reads of layers and images from a host's files, compared with `docker save`.
pub(super) async fn export(bench: &Bench) -> Result<Vec<Row>> {
    let rounds = bench.rounds.to_string();
    let image = bench.images.first().context("the demo stack has no image")?;
    let options = ["--docker", bench.host(), "--image", image, "--rounds", &rounds];
    let arguments = [&["run", "--bin", "export-peer", "--"][..], &options].concat();
    rows(bench, "export", &arguments).await
}

/// Measures a sync of twenty unchanged images in fifty ranges.
pub(super) async fn fleet(bench: &Bench) -> Result<Vec<Row>> {
    if !source("src/bin/fleet-peer.rs").exists() {
        let why = "this source tree has no benches/src/bin/fleet-peer.rs";
        return Ok(vec![Row::failed("unchanged-20x50", None, why)]);
    }
    rows(bench, "fleet", &["run", "--bin", "fleet-peer", "--"]).await
}

fn source(path: &str) -> PathBuf {
    crate::workspace::root().join("benches").join(path)
}

/// Builds and runs a program of `benches/`, and returns the rows among its output.
async fn rows(bench: &Bench, what: &str, arguments: &[&str]) -> Result<Vec<Row>> {
    bench.say(&format!("{what}: building and running benches/"));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let (verb, rest) = arguments.split_first().context("the cargo command has no verb")?;
    command.current_dir(crate::workspace::root()).arg(verb);
    command.args(["--quiet", "--locked", "--package", "benches", "--profile", PROFILE]).args(rest);
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await.context("starting cargo")?;
    ensure!(output.status.success(), "the benchmark `{what}` failed: {}", output.status);
    let rows = read(&String::from_utf8_lossy(&output.stdout));
    ensure!(!rows.is_empty(), "the benchmark `{what}` printed no measure");
    Ok(rows)
}

/// The rows among lines of all kinds.
fn read(text: &str) -> Vec<Row> {
    let rows = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let says_which = line.get("bound").is_some();
        let row: Row = serde_json::from_value(line).ok()?;
        Some(if says_which { row } else { with_bound(row) })
    });
    rows.collect()
}

/// Adds the missing bound to a row: a goal in seconds is an upper limit for `ours`, any other a lower
/// limit for the ratio to the only peer.
fn with_bound(row: Row) -> Row {
    if row.unit == "s" || row.peer.is_none() {
        return Row { bound: Bound::Most, ratio: None, ..row };
    }
    let against = row.peers.keys().next().cloned().filter(|_| row.peers.len() == 1);
    Row { bound: Bound::Least, against, ..row }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rows_are_read_from_the_output() {
        let text = "running 0 tests\n{\"route\":\"tcp\"}\n\
            {\"measure\":\"wire-tcp\",\"store\":null,\"rounds\":5,\"ours\":1.5,\"peer\":1.6,\
             \"peers\":{\"raw tcp\":1.6},\"unit\":\"GB/s\",\"ratio\":0.94,\"goal\":0.85,\"met\":true}\n";
        let rows = read(text);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].measure.as_str(), rows[0].met), ("wire-tcp", Some(true)));
    }

    #[test]
    fn the_unit_decides_the_missing_bound() {
        let line = |unit: &str| {
            format!(
                "{{\"measure\":\"x\",\"rounds\":3,\"ours\":0.1,\"peer\":0.4,\"peers\":{{\"save\":0.4}},\
                 \"unit\":\"{unit}\",\"ratio\":0.25,\"goal\":0.2,\"met\":true}}"
            )
        };
        let row = |unit: &str| read(&line(unit)).remove(0);
        let seconds = row("s");
        assert_eq!((seconds.bound, seconds.ratio), (Bound::Most, None), "{seconds:?}");
        let speed = row("MB/s");
        assert_eq!((speed.bound, speed.against.as_deref()), (Bound::Least, Some("save")));
    }
}
