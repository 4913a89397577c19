//! `cargo xtask range`: a thin front of the library `range`.

mod arguments;
mod dry_run;
mod output;
mod place;
mod progress;
mod seeds;
mod wanted;

use std::future::Future;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use range::{Label, LoadWay, RangeError, RangeName, Ranges, Reference, Settings, UpRequest};

use self::arguments::{Format, Making, Names, RangeImage, RangeMode, Which};
use self::progress::Progress;
use self::wanted::{Images, references};
use crate::exit::Exit;

pub(crate) use self::output::reports;
pub(crate) use self::place::{Place, settings};
pub(crate) use self::progress::Progress as Shown;

/// How long a command in a range may take, unless told otherwise.
const EXEC_LIMIT: Duration = Duration::from_secs(3600);

/// What is to be done with ranges.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring ranges up with their images; what is up already is kept.
    Up(Up),
    /// List the ranges, their engines and their images.
    Ls(Ls),
    /// Tell how ranges are: their engines, whether they are in step with what is wanted, what failed.
    Status(Ls),
    /// Bring images into ranges that are up: only the layers that each lacks.
    Sync(Sync),
    /// Check images again, file by file, through the engines of their ranges.
    Verify(Verify),
    /// Run a command in a range; `docker …` there speaks to the engine inside.
    Exec(Exec),
    /// List the seeds that new ranges begin with, or remove some.
    Seeds(seeds::Seeds),
    /// Remove ranges with all that belongs to them; with all ranges their seeds go too.
    Down(Down),
}

/// Shown under `range --help`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  Three ranges with two images each, both of which this machine's engine has:
    cargo xtask range up --count 3 --image python:3.12 --image postgres:16
  Fifty, each begun with a copy of one seed:
    cargo xtask range up --count 50 --image python:3.12 --image postgres:16
  Two more, on Docker's containerd store:
    cargo xtask range up --name blobs --count 2 --range-image containerd --image python:3.12
  The images of a stack's services, seen beforehand:
    cargo xtask range up --count 3 --compose compose.yaml --dry-run
  An image was built again: bring all ranges in step, for a script to read:
    cargo xtask range sync --format json
  Look inside:
    cargo xtask range ls
    cargo xtask range status
    cargo xtask range verify --image python:3.12
    cargo xtask range exec range-1 -- docker images
  Away with them:
    cargo xtask range down
Exit codes: 0 done, 1 failure, 2 usage, 3 some ranges or images failed, 130 interrupted.";

/// What ranges are to be up.
#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    images: Images,
    /// The Docker-in-Docker image that ranges are made from: `overlay2` or `containerd` for the
    /// usual ones that set-up makes, with that image store; `26.1-overlay2`, `28.5-overlay2`,
    /// `28.5-containerd` or `20.10-overlay2` for one of them in particular; or the name of one that
    /// the engine has.
    #[arg(long, value_name = "IMAGE", default_value = "overlay2")]
    range_image: RangeImage,
    /// A label to tell the ranges apart by later; may be given several times. They replace those that
    /// a range has; without any, it keeps them.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// How ranges are allowed to run an engine. Both ways, root inside is as strong as root here.
    #[arg(long, value_name = "MODE", default_value = "auto")]
    mode: RangeMode,
    /// How images are brought into the engines: `archive`, `containerd`, `registry`, or `auto`, the
    /// fastest that each engine's store allows.
    #[arg(long, value_name = "WAY", default_value = "auto")]
    load_way: LoadWay,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    forecast: Forecast,
    #[command(flatten)]
    common: Common,
}

/// How ranges are listed.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// What is to be brought where.
#[derive(Debug, Args)]
pub(crate) struct Sync {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    forecast: Forecast,
    #[command(flatten)]
    common: Common,
}

/// What is to be checked where.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads each image twice through the engine of its range: its layers, which must hash \
                  to what the image names, and the root that a container would get. Exit code 3 when \
                  anything is wrong."
)]
pub(crate) struct Verify {
    #[command(flatten)]
    which: Which,
    /// An image to check; may be given several times. Without any, all that each range has.
    #[arg(long = "image", value_name = "REFERENCE")]
    images: Vec<Reference>,
    /// Only ask the engines whether they have every layer, and read no file.
    #[arg(long)]
    shallow: bool,
    #[command(flatten)]
    common: Common,
}

/// What is to be run where.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is the command's own.")]
pub(crate) struct Exec {
    /// The range.
    #[arg(value_name = "NAME")]
    name: RangeName,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What is to be removed.
#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    which: Which,
    /// Ranges worked on at once; as many as there are cores unless said.
    #[arg(long, value_name = "COUNT", value_parser = arguments::concurrency)]
    concurrency: Option<usize>,
}

/// What only looks ahead.
#[derive(Debug, Args)]
struct Forecast {
    /// Only print which images are wanted, why, and what would move; change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What several of them take.
#[derive(Debug, Args)]
struct Common {
    /// Ranges worked on at once; as many as there are cores unless said.
    #[arg(long, value_name = "COUNT", value_parser = arguments::concurrency)]
    concurrency: Option<usize>,
    /// How results are printed on stdout.
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Format,
}

/// Does it.
///
/// # Errors
/// When it could not be done at all; what goes wrong with one range is the exit code's to tell.
pub(crate) fn run(command: &Command) -> Result<Exit> {
    match command {
        Command::Up(up) => run_up(up),
        Command::Ls(ls) => run_ls(ls, output::statuses),
        Command::Status(status) => run_ls(status, output::standings),
        Command::Sync(sync) => run_sync(sync),
        Command::Verify(verify) => run_verify(verify),
        Command::Exec(exec) => run_exec(exec),
        Command::Seeds(seeds) => seeds::run(seeds),
        Command::Down(down) => run_down(down),
    }
}

/// Runs `work` to its end, or until the person ends it: work that the same command takes up again.
pub(crate) fn until_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let done = interruptible(work)?;
    if done.is_none() {
        eprintln!("interrupted; the same command goes on from here");
    }
    Ok(done)
}

/// Runs `work` to its end, or until the person ends it, which is the caller's to tell.
pub(crate) fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done.map(Some),
            signal = tokio::signal::ctrl_c() => {
                signal.context("listening for an interrupt")?;
                Ok(None)
            }
        }
    })
}

/// The error with its next step, for the last line of a command.
pub(crate) fn told(error: &RangeError) -> anyhow::Error {
    anyhow::anyhow!("{}", error.explain())
}

fn run_up(up: &Up) -> Result<Exit> {
    let names = up.names.list()?;
    let wanted = up.images.wanted()?;
    if up.forecast.dry_run {
        return dry_run::up(&names, &wanted, up.common.format);
    }
    let place = Place::for_up(&up.range_image)?;
    let request = UpRequest {
        names,
        range_image: place.range_image(&up.range_image)?,
        images: references(&wanted),
        labels: up.labels.iter().cloned().collect(),
    };
    let settings = Settings {
        mode: up.mode.into(),
        load_way: up.load_way,
        ..settings(&place, up.common.concurrency)
    };
    let settings = up.making.on(settings, up.common.concurrency);
    let report = until_interrupted(async {
        let ranges = Ranges::connect(settings).await.map_err(|error| told(&error))?;
        eprintln!("{}", ranges.isolation().map_err(|error| told(&error))?.sentence());
        let progress = Arc::new(Progress::of(&request.names));
        let started = Instant::now();
        let report = ranges.up(&request, progress).await.map_err(|error| told(&error))?;
        Ok((report, started.elapsed()))
    })?;
    finish(report, up.common.format)
}

fn run_sync(sync: &Sync) -> Result<Exit> {
    let wanted = sync.images.wanted()?;
    if sync.forecast.dry_run {
        return dry_run::sync(sync.which.selection(), &wanted, sync.common.format);
    }
    let images = references(&wanted);
    let place = Place::for_sync()?;
    let report = until_interrupted(async {
        let settings = settings(&place, sync.common.concurrency);
        let ranges = Ranges::connect(settings).await.map_err(|error| told(&error))?;
        let progress = Arc::new(Progress::start(sync.which.count()));
        let selection = sync.which.selection();
        let started = Instant::now();
        let synced = ranges.sync(&selection, &images, progress).await;
        Ok((synced.map_err(|error| told(&error))?, started.elapsed()))
    })?;
    finish(report, sync.common.format)
}

fn finish(report: Option<(range::Report, Duration)>, format: Format) -> Result<Exit> {
    let Some((report, wall)) = report else { return Ok(Exit::Interrupted) };
    match format {
        Format::Table => reports(&report, wall),
        Format::Json => output::json_lines(report.lines())?,
    }
    Ok(Exit::whole(report.is_whole()))
}

fn run_verify(verify: &Verify) -> Result<Exit> {
    let place = Place::as_it_is()?;
    let checks = until_interrupted(async {
        let ranges = Ranges::connect(settings(&place, verify.common.concurrency)).await;
        let ranges = ranges.map_err(|error| told(&error))?;
        let selection = verify.which.selection();
        let checks = ranges.verify(&selection, &verify.images, !verify.shallow).await;
        checks.map_err(|error| told(&error))
    })?;
    let Some(checks) = checks else { return Ok(Exit::Interrupted) };
    match verify.common.format {
        Format::Table => output::checks(&checks),
        Format::Json => {
            output::json_lines(checks.iter().flat_map(range::RangeCheck::lines))?;
            for check in &checks {
                if let Some(error) = &check.error {
                    eprintln!("{}: {error}", check.range);
                }
            }
        }
    }
    Ok(Exit::whole(checks.iter().all(range::RangeCheck::is_well)))
}

fn run_ls(ls: &Ls, show: fn(&[range::RangeStatus])) -> Result<Exit> {
    let place = Place::as_it_is()?;
    let statuses = until_interrupted(async {
        let ranges = Ranges::connect(settings(&place, ls.common.concurrency)).await;
        let ranges = ranges.map_err(|error| told(&error))?;
        ranges.list_of(&ls.which.selection()).await.map_err(|error| told(&error))
    })?;
    let Some(statuses) = statuses else { return Ok(Exit::Interrupted) };
    match ls.common.format {
        Format::Table => show(&statuses),
        Format::Json => output::json_lines(statuses.iter().map(range::RangeStatus::line))?,
    }
    Ok(Exit::Ok)
}

fn run_exec(exec: &Exec) -> Result<Exit> {
    let place = Place::as_it_is()?;
    let output = until_interrupted(async {
        let ranges = Ranges::connect(settings(&place, None)).await.map_err(|error| told(&error))?;
        let command: Vec<&str> = exec.command.iter().map(String::as_str).collect();
        ranges.exec(&exec.name, &command, EXEC_LIMIT).await.map_err(|error| told(&error))
    })?;
    let Some(output) = output else { return Ok(Exit::Interrupted) };
    std::io::stderr().write_all(&output.stderr).context("writing what the command said")?;
    std::io::stdout().write_all(&output.stdout).context("writing what the command printed")?;
    Ok(match u8::try_from(output.exit_code) {
        Ok(0) => Exit::Ok,
        Ok(code) => Exit::Code(code),
        Err(_) => Exit::Code(1),
    })
}

fn run_down(down: &Down) -> Result<Exit> {
    let place = Place::for_down()?;
    let removals = until_interrupted(async {
        let ranges = Ranges::connect(settings(&place, down.concurrency)).await;
        let ranges = ranges.map_err(|error| told(&error))?;
        ranges.down(&down.which.selection()).await.map_err(|error| told(&error))
    })?;
    let Some(removals) = removals else { return Ok(Exit::Interrupted) };
    if removals.is_empty() {
        eprintln!("there are no ranges");
    }
    for removal in &removals {
        match &removal.error {
            Some(error) => eprintln!("{}: not removed whole: {error}", removal.range),
            None if removal.found => eprintln!("{}: removed", removal.range),
            None => eprintln!("{}: there is no such range", removal.range),
        }
    }
    Ok(Exit::whole(removals.iter().all(|removal| removal.error.is_none())))
}
