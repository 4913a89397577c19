//! The most memory that the agents ever hold: with many ranges at once, and with large layers.

use std::io::Write as _;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::docker::Docker;
use super::row::{Bound, Row, Take, counted};
use super::site::{Site, float, names};
use super::{Bench, free_bytes};
use crate::setup::{self, Store};

/// Ranges at once.
const RANGES: usize = 16;

/// The image that they get, by a word of its name; the first where there is none of it.
const IMAGE: &str = "node";

/// The most that each agent may hold, in MiB.
const HOST_AGENT: f64 = 128.0;
const DIND_AGENT: f64 = 64.0;

/// Sizes of layers, in GiB (MiB in a quick run): the first is compared with the largest of the others
/// that has room.
const SMALL: u64 = 1;
const LARGE: [u64; 3] = [8, 4, 2];

/// What a layer takes of the disk on its way, in times its size: the image, the engine's temporary
/// copy, the range's layer, and as much again to be safe.
const DISK_PER_SIZE: u64 = 4;

/// How much more a larger layer may take: what an allocator keeps or gives back is not the layer's.
const FLAT: f64 = 1.125;

/// Peaks with many ranges at once, once: a peak is no matter of medians.
pub(super) async fn many(bench: &Bench) -> Result<Vec<Row>> {
    let image = bench.images.iter().find(|image| image.contains(IMAGE));
    let images = [image.or(bench.images.first()).context("there is no image")?.clone()];
    bench.say(&format!("memory with {RANGES} ranges at once"));
    let take = taken(bench, RANGES, &images).await?;
    Ok(vec![
        peak("peak-rss-host-16", &take, "host_agent", HOST_AGENT),
        peak("peak-rss-dind", &take, "dind_agent", DIND_AGENT),
    ])
}

/// Peaks with a small layer and with a large one.
pub(super) async fn flat(bench: &Bench) -> Result<Vec<Row>> {
    let free = free_bytes(&bench.folder)?;
    let (shift, unit) = if bench.quick { (20, "MiB") } else { (30, "GiB") };
    let room = |size: &&u64| DISK_PER_SIZE * (**size << shift) < free;
    let Some(large) = LARGE.iter().find(room) else {
        let why = format!("{} GB of free disk do not hold a large layer", free / 1_000_000_000);
        return Ok(vec![Row::absent("peak-rss-flat-host", None, why)]);
    };
    let peer = layer(bench, SMALL << shift).await?;
    let ours = layer(bench, large << shift).await?;
    let row = |measure: &str, whose: &str| {
        Row::of(measure, Some(&Store::Overlay2.to_string()), "MiB", &mebibytes(&ours, whose))
            .goal_against("the smaller layer", &mebibytes(&peer, whose), Bound::Most, FLAT)
            .noting(format!("a layer of {large} {unit}, beside one of {SMALL} {unit}"))
    };
    Ok(vec![row("peak-rss-flat-host", "host_agent"), row("peak-rss-flat-dind", "dind_agent")])
}

/// Brings an image of one layer of `size` bytes into a fresh range, in each round again: how far an
/// allocator goes is a matter of chance, too.
async fn layer(bench: &Bench, size: u64) -> Result<Vec<Take>> {
    let images = [format!("longshore-bench/large:{size}")];
    import(bench, &images[0], size).await?;
    let rounds = stream::iter(1..=bench.rounds).then(|round| {
        bench.say(&format!(
            "memory with a layer of {} MiB, {round} of {}",
            size >> 20,
            bench.rounds
        ));
        taken(bench, 1, &images)
    });
    let takes = rounds.try_collect().await;
    Docker::at(bench.host()).forget(&images).await;
    takes
}

async fn taken(bench: &Bench, ranges: usize, images: &[String]) -> Result<Take> {
    let site = Site::start(bench, ranges).await?;
    let image = bench.range_image(Store::Overlay2)?;
    let ranges = site.up(image, &names("memory", ranges)?).await?;
    let take = site.timed(&ranges, site.sync(&ranges, images)).await?;
    site.end().await?;
    Ok(take)
}

fn mebibytes(takes: &[Take], whose: &str) -> Vec<Take> {
    let peaks = counted(takes, &format!("{whose}_peak_rss_bytes"));
    peaks.iter().map(|peak| Take::of(peak.value / float(1 << 20))).collect()
}

fn peak(measure: &str, take: &Take, whose: &str, goal: f64) -> Row {
    let peaks = mebibytes(std::slice::from_ref(take), whose);
    Row::of(measure, Some(&Store::Overlay2.to_string()), "MiB", &peaks).goal(Bound::Most, goal)
}

/// Imports an image of one layer with one large file, without a copy of it on disk beside.
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
        // Different in every frame, so that nothing is gained by equal pages.
        frame[..8].copy_from_slice(&number.to_le_bytes());
        pipe.write_all(&frame)?;
    }
    pipe.write_all(&[0; 1024])
}
