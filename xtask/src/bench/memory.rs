//! Peak memory of the agents, with many ranges at once and with large layers.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::context::{Bench, free_bytes};
use super::docker::Docker;
use super::row::{Bound, Row, Sample, counted};
use super::testbed::{Testbed, float, names};
use crate::setup::{self, Store};

/// Number of concurrent ranges.
const RANGES: usize = 16;

/// Part of the name of their image; without a match, the first image is used.
const IMAGE: &str = "node";

/// Goals for the peak memory of each agent, in MiB.
const HOST_AGENT: f64 = 128.0;
const DIND_AGENT: f64 = 64.0;

/// Sizes of layers in GiB (MiB in a quick run). The small one is compared with the largest one that
/// fits on the disk.
const SMALL: u64 = 1;
const LARGE: [u64; 3] = [8, 4, 2];

/// Disk space for a layer, as a multiple of its size: the image, the engine's temporary copy, the
/// range's layer, and one more for safety.
const DISK_PER_SIZE: u64 = 4;

/// Highest ratio of the peak with a large layer to that with a small one. It leaves room for what an
/// allocator keeps.
const FLAT: f64 = 1.125;

/// Measures the peaks with many ranges at once, in a single round: a median of peaks means nothing.
pub(super) async fn many(bench: &Bench) -> Result<Vec<Row>> {
    let image = bench.images.iter().find(|image| image.contains(IMAGE));
    let images = [image.or(bench.images.first()).context("the bench has no image")?.clone()];
    bench.say(&format!("memory with {RANGES} ranges at once"));
    let sample = sample(bench, RANGES, &images).await?;
    Ok(vec![
        peak("peak-rss-host-16", &sample, "host_agent", HOST_AGENT),
        peak("peak-rss-dind", &sample, "dind_agent", DIND_AGENT),
    ])
}

/// Measures the peaks with a small layer and with a large one.
pub(super) async fn flat(bench: &Bench) -> Result<Vec<Row>> {
    let free = free_bytes(&bench.folder)?;
    let (shift, unit) = if bench.quick { (20, "MiB") } else { (30, "GiB") };
    let room = |size: &&u64| DISK_PER_SIZE * (**size << shift) < free;
    let Some(large) = LARGE.iter().find(room) else {
        let why = format!("{} GB of free disk are too few for a large layer", free / 1_000_000_000);
        return Ok(vec![Row::failed("peak-rss-flat-host", None, why)]);
    };
    let peer = layer(bench, SMALL << shift).await?;
    let ours = layer(bench, large << shift).await?;
    let row = |measure: &str, agent: &str| {
        Row::of(measure, Some(&Store::Overlay2.to_string()), "MiB", &mebibytes(&ours, agent))
            .goal_against("the smaller layer", &mebibytes(&peer, agent), Bound::Most, FLAT)
            .with_note(format!("a layer of {large} {unit}, compared with one of {SMALL} {unit}"))
    };
    Ok(vec![row("peak-rss-flat-host", "host_agent"), row("peak-rss-flat-dind", "dind_agent")])
}

/// Syncs an image with one layer of `size` bytes into a fresh range, once per round, since an
/// allocator's behaviour varies.
async fn layer(bench: &Bench, size: u64) -> Result<Vec<Sample>> {
    let images = [format!("longshore-bench/large:{size}")];
    import(bench, &images[0], size).await?;
    let rounds = stream::iter(1..=bench.rounds).then(|round| {
        bench.say(&format!(
            "memory with a layer of {} MiB, {round} of {}",
            size >> 20,
            bench.rounds
        ));
        sample(bench, 1, &images)
    });
    let samples = rounds.try_collect().await;
    Docker::at(bench.host()).remove_images(&images).await;
    samples
}

async fn sample(bench: &Bench, ranges: usize, images: &[String]) -> Result<Sample> {
    let testbed = Testbed::start(bench, ranges).await?;
    let image = bench.range_image(Store::Overlay2)?;
    let ranges = testbed.up(image, &names("memory", ranges)?).await?;
    let sample = testbed.timed(&ranges, testbed.sync(&ranges, images)).await?;
    testbed.end().await?;
    Ok(sample)
}

fn mebibytes(samples: &[Sample], agent: &str) -> Vec<Sample> {
    let peaks = counted(samples, &format!("{agent}_peak_rss_bytes"));
    peaks.iter().map(|peak| Sample::of(peak.value / float(1 << 20))).collect()
}

fn peak(measure: &str, sample: &Sample, agent: &str, goal: f64) -> Row {
    let peaks = mebibytes(std::slice::from_ref(sample), agent);
    Row::of(measure, Some(&Store::Overlay2.to_string()), "MiB", &peaks).goal(Bound::Most, goal)
}

/// Imports an image with one layer of one large file, without a second copy on the disk.
async fn import(bench: &Bench, image: &str, size: u64) -> Result<()> {
    let mut command = setup::command("docker")?;
    command.args([
        "--host",
        bench.host(),
        "import",
        "--change",
        "LABEL dev.longshore=1",
        "-",
        image,
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let pipe = child.stdin.take().context("docker import has no stdin")?;
    let written = tokio::task::spawn_blocking(move || write_archive(pipe, size)).await?;
    let status = child.wait().context("waiting for docker import")?;
    written.context("writing to docker import")?;
    ensure!(status.success(), "docker import failed: {status}");
    Ok(())
}

fn write_archive(mut pipe: std::process::ChildStdin, size: u64) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_path("large")?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    pipe.write_all(header.as_bytes())?;
    let mut frame = vec![0_u8; 1 << 20];
    for number in 0..size >> 20 {
        // Frames differ, so that nothing gains from equal pages.
        frame[..8].copy_from_slice(&number.to_le_bytes());
        pipe.write_all(&frame)?;
    }
    pipe.write_all(&[0; 1024])
}
