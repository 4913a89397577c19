//! `cargo xtask demo`: from a bare machine to programs that run in ranges.

mod compare;
mod embedded;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use futures::future::{join_all, try_join_all};
use longshore::interrupt::until_interrupted;
use longshore::range::{Progress, reports};
use process::exit::Exit;
use process::output::{count, time};
use range::{ExecOutput, RangeName, Ranges, Reference, Report, UpRequest};

use crate::build;
use crate::range::{Place, told};
use crate::setup::{self, Machine, Needs, Ranges as Kinds, State};

/// The demo's ranges, one for each range image that set-up makes.
const RANGES: [(&str, usize); 3] = [("demo-1", 0), ("demo-2", 1), ("demo-3", 2)];

/// Timeout for a program in a range, whose engine may be busy with other programs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(120);

/// Number of a program's output lines that are shown.
const MAX_LINES: usize = 4;

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run without Docker and without root: use folders in the OCI image layout instead of engines.
    #[arg(long)]
    embedded: bool,
}

/// Runs the demo.
///
/// # Errors
/// The demo could not run.
pub(crate) fn run(options: &Options) -> Result<Exit> {
    if options.embedded {
        return embedded::run();
    }
    if !rustix::process::geteuid().is_root()
        && let Err(error) = setup::engine_host(&State::open()?)
    {
        eprintln!(
            "{error:#}, which needs root. Running `cargo xtask demo --embedded` instead, with folders \
             in place of engines."
        );
        return embedded::run();
    }
    with_engines()
}

/// Runs the demo with real engines on both sides.
fn with_engines() -> Result<Exit> {
    let started = Instant::now();
    // Build the agents while set-up fetches packages and makes images.
    let build = build::begin()?;
    let machine = setup::ensure(&Needs { ranges: Kinds::Usual, stack: true })?;
    let place = Place::on(&machine, &build.finish()?)?;
    let shown = until_interrupted(show(&machine, &place))?;
    let Some(whole) = shown else { return Ok(Exit::Interrupted) };
    println!("\n{} in total", time(started.elapsed()));
    if whole {
        println!("{}", next_steps(&machine, &place));
    }
    Ok(Exit::whole(whole))
}

/// Starts the ranges and shows their content; returns whether everything succeeded.
async fn show(machine: &Machine, place: &Place) -> Result<bool> {
    let images: Vec<Reference> =
        machine.stack.iter().map(|image| image.parse()).collect::<Result<_, _>>()?;
    let settings = place.site().settings(Some(RANGES.len()));
    let ranges = Ranges::connect(settings).await.map_err(|error| told(&error))?;
    eprintln!("{}", ranges.isolation().map_err(|error| told(&error))?.sentence());

    let started = Instant::now();
    let report = up(machine, &ranges, &images).await?;
    print!("\n{}", reports(&report, started.elapsed()));
    if !report.is_whole() {
        return Ok(false);
    }
    let programs = programs(&ranges, &report).await?;
    Ok(compare::with_docker_client(machine, &ranges, &report).await? && programs)
}

/// Starts all ranges at once, with one call per range image.
async fn up(machine: &Machine, ranges: &Ranges, images: &[Reference]) -> Result<Report> {
    if machine.range_images.is_empty() {
        bail!("set-up made no range image");
    }
    let progress = Arc::new(Progress::start(RANGES.len()));
    let requests = machine.range_images.iter().enumerate().map(|(position, image)| {
        let names =
            RANGES.iter().filter(|(_, wanted)| wanted % machine.range_images.len() == position);
        let names = names.map(|(name, _)| name.parse()).collect::<Result<_, _>>();
        let progress = progress.clone();
        async move {
            let request = UpRequest {
                names: names?,
                range_image: image.reference.clone(),
                images: images.to_vec(),
                grants: Vec::new(),
                labels: range::Labels::default(),
            };
            ranges.up(&request, progress).await.map_err(|error| told(&error))
        }
    });
    let mut all: Vec<_> =
        try_join_all(requests).await?.into_iter().flat_map(|report| report.ranges).collect();
    all.sort_by(|a, b| a.range.cmp(&b.range));
    Ok(Report { ranges: all })
}

/// Runs the program of each image inside each range, and prints its output.
async fn programs(ranges: &Ranges, report: &Report) -> Result<bool> {
    println!("\nThe program of each image, run inside each range (docker run in the range):");
    let runs = report.ranges.iter().map(|range| async move {
        let mut outputs = Vec::new();
        for image in &range.images {
            outputs.push((
                image.reference.clone(),
                program(ranges, &range.range, &image.reference).await?,
            ));
        }
        Ok::<_, anyhow::Error>((range.range.clone(), outputs))
    });
    let mut all_ran = true;
    for run in join_all(runs).await {
        let (range, outputs) = run?;
        for (image, output) in outputs {
            all_ran &= output.exit_code == 0;
            println!("  {range}  {image}: {}", summary(&output));
        }
    }
    Ok(all_ran)
}

/// Runs the default command of `image` in `range`.
async fn program(ranges: &Ranges, range: &RangeName, image: &Reference) -> Result<ExecOutput> {
    let image = image.to_string();
    // Without network and system call filter it runs on any host: a range without all capabilities
    // cannot install a filter either.
    let command = [
        "docker",
        "run",
        "--rm",
        "--network",
        "none",
        "--security-opt",
        "seccomp=unconfined",
        &image,
    ];
    ranges.exec(range, &command, PROGRAM_TIMEOUT).await.map_err(|error| told(&error))
}

/// A program's output, or its failure, on one line.
fn summary(output: &ExecOutput) -> String {
    let (text, mark) = match output.exit_code {
        0 => (&output.stdout, String::new()),
        code => (&output.stderr, format!("exit code {code}: ")),
    };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let more = if MAX_LINES < lines.len() { " …" } else { "" };
    format!("{mark}{}{more}", lines[..lines.len().min(MAX_LINES)].join(" | "))
}

/// Suggestions for what to try next.
fn next_steps(machine: &Machine, place: &Place) -> String {
    let image = machine.stack.first().map_or("IMAGE", String::as_str);
    let mut text = format!(
        "\n{} running. Try next:\n  \
         cargo xtask range ls\n  \
         cargo xtask range exec demo-2 -- docker image rm --force {image}\n  \
         cargo xtask range sync        # moves only that image\n  \
         cargo xtask range sync        # moves nothing\n  \
         cargo xtask range up --name mine --range-image containerd --image {image}\n",
        count(RANGES.len(), "range")
    );
    if let Some(inspect) = &place.inspect {
        text.push_str(&format!(
            "  grpcurl -plaintext {inspect} list\n  \
             grpcurl -plaintext -d '{{\"page_size\": 2}}' {inspect} longshore.v1.InventoryService/ListImages\n  \
             buf curl --protocol grpc --http2-prior-knowledge http://{inspect}/longshore.v1.AdminService/GetStats\n  \
             grpcurl -plaintext {inspect} longshore.v1.AdminService/ListRanges\n"
        ));
    }
    text.push_str("  cargo xtask range down        # removes the ranges\n  cargo xtask teardown          # removes everything");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(exit_code: i64, stdout: &str, stderr: &str) -> ExecOutput {
        ExecOutput { exit_code, stdout: stdout.into(), stderr: stderr.into() }
    }

    #[test]
    fn a_programs_output_is_shown_on_one_line() {
        assert_eq!(summary(&output(0, "one\n\n  two\n", "noise")), "one | two");
        assert_eq!(summary(&output(0, "1\n2\n3\n4\n5\n", "")), "1 | 2 | 3 | 4 …");
        assert_eq!(summary(&output(125, "", "no such image\n")), "exit code 125: no such image");
    }
}
