//! `longshore range`: a thin front of the library `range`.

mod arguments;
mod connect;
mod dry_run;
mod print;
mod progress;
mod seeds;
mod wanted;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use process::exit::Exit;
use process::output::{Format, print as print_text, print_json_lines};
use range::{
    Label, LoadWay, Pattern, RangeName, RangeState, Ranges, Reference, Report, Settings, UpRequest,
};

use self::arguments::{Making, Names, RangeMode, Which};
use self::connect::connect;
use self::wanted::{Images, references};
use crate::interrupt::until_interrupted;
use crate::site::{Setting, Site};

pub use self::print::reports;
pub use self::progress::Progress;
pub use self::seeds::Seeds;

/// How long a command in a range may take, unless told otherwise.
const EXEC_LIMIT: Duration = Duration::from_secs(3600);

/// Commands for ranges.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    Seeds(Seeds),
    /// Remove ranges with all that belongs to them; with all ranges their seeds go too.
    Down(Down),
}

/// Shown under `range --help`.
pub const EXAMPLES: &str = "\
Examples:
  Three ranges with two images each, both of which this machine's engine has:
    longshore range up --count 3 --image python:3.12 --image postgres:16
  Fifty, each begun with a copy of one seed:
    longshore range up --count 50 --image python:3.12 --image postgres:16
  Two more, from another Docker-in-Docker image that the engine has:
    longshore range up --name old --count 2 --range-image docker:26-dind --image python:3.12
  The images of a stack's services, seen beforehand:
    longshore range up --count 3 --compose compose.yaml --dry-run
  An image was built again: bring all ranges in step, for a script to read:
    longshore range sync --format json
  Look inside:
    longshore range ls
    longshore range status
    longshore range verify --image python:3.12
    longshore range exec range-1 -- docker images
  Away with them:
    longshore range down
Exit codes: 0 done, 1 failure, 2 usage, 3 some ranges or images failed, 130 interrupted.";

/// Arguments of `range up`.
#[derive(Debug, Args)]
pub struct Up {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    images: Images,
    /// Docker-in-Docker image that ranges are made from. The engine must have it: nothing is pulled.
    /// `longshore config` prints the default. Environment: `LONGSHORE_RANGE_IMAGE`.
    #[arg(long, value_name = "IMAGE")]
    pub range_image: Option<String>,
    /// Pattern of images that the ranges may read beside those, such as `team/*`; may be given several
    /// times. `*` means every image. They replace those that a range has; without any, it keeps them.
    #[arg(long = "grant", value_name = "PATTERN")]
    grants: Vec<Pattern>,
    /// A label to tell the ranges apart by later; may be given several times. They replace those that
    /// a range has; without any, it keeps them.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<Label>,
    /// Privileges with which ranges run an engine. Both ways, root inside is as strong as root here.
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

/// Arguments of `range ls`.
#[derive(Debug, Args)]
pub struct Ls {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `range sync`.
#[derive(Debug, Args)]
pub struct Sync {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    images: Images,
    #[command(flatten)]
    forecast: Forecast,
    #[command(flatten)]
    common: Common,
}

/// Arguments of `range verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads each image twice through the engine of its range: its layers, which must hash \
                  to what the image names, and the root that a container would get. Exit code 3 when \
                  anything is wrong."
)]
pub struct Verify {
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

/// Arguments of `range exec`.
#[derive(Debug, Args)]
#[command(after_help = "The exit code is the command's own.")]
pub struct Exec {
    /// The range.
    #[arg(value_name = "NAME")]
    name: RangeName,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Arguments of `range down`.
#[derive(Debug, Args)]
pub struct Down {
    #[command(flatten)]
    which: Which,
    /// Ranges worked on at once; as many as there are cores unless said.
    #[arg(long, value_name = "COUNT", value_parser = arguments::concurrency)]
    concurrency: Option<usize>,
}

/// Option of commands that can only look ahead.
#[derive(Debug, Args)]
struct Forecast {
    /// Only print which images are wanted, why, and what would move; change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Options that several commands share.
#[derive(Debug, Args)]
struct Common {
    /// Ranges worked on at once; as many as there are cores unless said.
    #[arg(long, value_name = "COUNT", value_parser = arguments::concurrency)]
    concurrency: Option<usize>,
    /// Form of the results on stdout.
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Format,
}

impl Up {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.forecast.dry_run
    }
}

impl Sync {
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.forecast.dry_run
    }
}

/// Carries a verb out.
///
/// # Errors
/// When it could not be done at all; the exit code tells of ranges and images that failed.
pub fn run(command: &Command, site: &Site) -> Result<Exit> {
    match command {
        Command::Up(up) => run_up(up, site),
        Command::Ls(ls) => run_ls(ls, print::statuses, site),
        Command::Status(status) => run_ls(status, print::standings, site),
        Command::Sync(sync) => run_sync(sync, site),
        Command::Verify(verify) => run_verify(verify, site),
        Command::Exec(exec) => run_exec(exec, site),
        Command::Seeds(seeds) => seeds::run(seeds, site),
        Command::Down(down) => run_down(down, site),
    }
}

/// Prints `text` of what there is, or that there are no ranges.
fn print_or_none<T>(all: &[T], text: impl FnOnce(&[T]) -> String, site: &Site) -> Result<()> {
    if all.is_empty() {
        let program = site.program;
        print_text(&format!(
            "there are no ranges; `{program} range up --help` tells how to make some\n"
        ))
    } else {
        print_text(&text(all))
    }
}

fn run_up(up: &Up, site: &Site) -> Result<Exit> {
    let names = up.names.list()?;
    let wanted = up.images.wanted()?;
    if up.forecast.dry_run {
        return dry_run::up(&names, &wanted, up.common.format, site);
    }
    let range_image = up.range_image.as_deref().unwrap_or_else(|| site.text(Setting::RangeImage));
    let request = UpRequest {
        names,
        range_image: range_image.to_owned(),
        images: references(&wanted),
        grants: up.grants.clone(),
        labels: up.labels.iter().cloned().collect(),
    };
    let settings = Settings {
        mode: up.mode.into(),
        load_way: up.load_way,
        ..site.settings(up.common.concurrency)
    };
    let settings = up.making.on(settings, up.common.concurrency);
    let report = until_interrupted(async {
        let ranges = Ranges::connect(settings).await.map_err(|error| site.explain(&error))?;
        eprintln!("{}", ranges.isolation().map_err(|error| site.explain(&error))?.sentence());
        let progress = Arc::new(Progress::of(&request.names));
        let started = Instant::now();
        let report = ranges.up(&request, progress).await.map_err(|error| site.explain(&error))?;
        Ok((report, started.elapsed()))
    })?;
    finish(report, up.common.format, site)
}

fn run_sync(sync: &Sync, site: &Site) -> Result<Exit> {
    let wanted = sync.images.wanted()?;
    if sync.forecast.dry_run {
        return dry_run::sync(sync.which.selection(), &wanted, sync.common.format, site);
    }
    let images = references(&wanted);
    let report = until_interrupted(async {
        let ranges = connect(site, sync.common.concurrency).await?;
        let progress = Arc::new(Progress::start(sync.which.count()));
        let selection = sync.which.selection();
        let started = Instant::now();
        let synced = ranges.sync(&selection, &images, progress).await;
        Ok((synced.map_err(|error| site.explain(&error))?, started.elapsed()))
    })?;
    finish(report, sync.common.format, site)
}

fn finish(report: Option<(Report, Duration)>, format: Format, site: &Site) -> Result<Exit> {
    let Some((report, wall)) = report else { return Ok(Exit::Interrupted) };
    match format {
        Format::Table => print_or_none(&report.ranges, |_| print::reports(&report, wall), site)?,
        Format::Json => print_json_lines(report.lines())?,
    }
    if !report.is_whole() {
        site.print_why_silent();
    }
    Ok(Exit::whole(report.is_whole()))
}

fn run_verify(verify: &Verify, site: &Site) -> Result<Exit> {
    let checks = until_interrupted(async {
        let ranges = connect(site, verify.common.concurrency).await?;
        let selection = verify.which.selection();
        let checks = ranges.verify(&selection, &verify.images, !verify.shallow).await;
        checks.map_err(|error| site.explain(&error))
    })?;
    let Some(checks) = checks else { return Ok(Exit::Interrupted) };
    match verify.common.format {
        Format::Table => print_or_none(&checks, print::checks, site)?,
        Format::Json => {
            print_json_lines(checks.iter().flat_map(range::RangeCheck::lines))?;
            for check in &checks {
                if let Some(error) = &check.error {
                    eprintln!("{}: {error}", check.range);
                }
            }
        }
    }
    Ok(Exit::whole(checks.iter().all(range::RangeCheck::is_well)))
}

fn run_ls(ls: &Ls, show: fn(&[range::RangeStatus]) -> String, site: &Site) -> Result<Exit> {
    let statuses = until_interrupted(async {
        let ranges = connect(site, ls.common.concurrency).await?;
        ranges.list_of(&ls.which.selection()).await.map_err(|error| site.explain(&error))
    })?;
    let Some(statuses) = statuses else { return Ok(Exit::Interrupted) };
    match ls.common.format {
        Format::Table => print_or_none(&statuses, show, site)?,
        Format::Json => print_json_lines(statuses.iter().map(range::RangeStatus::line))?,
    }
    if statuses.iter().any(|status| status.state == RangeState::Unreachable) {
        site.print_why_silent();
    }
    Ok(Exit::Ok)
}

fn run_exec(exec: &Exec, site: &Site) -> Result<Exit> {
    let output = until_interrupted(async {
        let ranges = connect(site, None).await?;
        let command: Vec<&str> = exec.command.iter().map(String::as_str).collect();
        let output = ranges.exec(&exec.name, &command, EXEC_LIMIT).await;
        output.map_err(|error| site.explain(&error))
    })?;
    let Some(output) = output else { return Ok(Exit::Interrupted) };
    std::io::stderr().write_all(&output.stderr).context("writing what the command said")?;
    std::io::stdout().write_all(&output.stdout).context("writing what the command printed")?;
    Ok(match u8::try_from(output.exit_code) {
        Ok(0) => Exit::Ok,
        Ok(code) => Exit::Code(code),
        Err(_) => Exit::Failure,
    })
}

fn run_down(down: &Down, site: &Site) -> Result<Exit> {
    let removals = until_interrupted(async {
        let ranges = connect(site, down.concurrency).await?;
        ranges.down(&down.which.selection()).await.map_err(|error| site.explain(&error))
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
