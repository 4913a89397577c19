//! `cargo xtask bench`: provisioning, compared in one run with what users would choose instead.
//!
//! ```text
//! setup ► agents ► for each measure: rounds, each with every contender ► rows ► files
//! ```
//! Contenders alternate within a round, because a machine's speed varies by more than the differences
//! measured here. Each starts with fresh ranges and an idle disk. Page caches are warm for all, since
//! an earlier contender has read the host's images.

mod single;
mod context;
mod docker;
mod four;
mod top_layer;
mod machine;
mod memory;
mod output;
mod programs;
mod plot;
mod process;
mod registry;
mod row;
mod seeds;
mod testbed;
mod skopeo;
mod thin_archive;
mod load_methods;
mod xfs;

use std::path::{Path, PathBuf};
use std::time::Instant;

use ::process::exit::Exit;
use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use longshore::interrupt::interruptible;

use self::context::{Bench, Measure, free_bytes};
use self::docker::Docker;
use self::registry::Shared;
use self::row::Row;
use self::testbed::{PROJECT, Testbed};
use crate::build::{self, Agents};
use crate::setup::{self, Needs, Ranges, State, Store};

/// The images of the demo stack that are moved, by part of their names. The small one would not show
/// in the figures.
const IMAGES: [&str; 4] = ["llvm", "python", "node", "postgres"];

/// The images of a quick run.
const QUICK: [&str; 1] = ["tiny"];

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Format of the results on stdout; progress goes to stderr.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Number of rounds, each with every contender; figures are medians.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Run one round with the smallest image, to check that everything works.
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Run only these measures: comma-separated, or repeated. Writes files only with --out.
    #[arg(long, value_name = "MEASURE", value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// Folder for bench.json, table.md and the plots [default: benches/results].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Write the table between the markers in README.md.
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    write_readme: bool,
    /// Measure the agents in this folder instead of building them from these sources.
    #[arg(long, value_name = "FOLDER")]
    agents: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// A kind of group: measures that share ranges.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Wire,
    Export,
    Fleet,
    Single(Store),
    Four,
    Ways(Store),
    Reflink,
    Copy(Store),
    Memory,
    LargeLayer,
}

/// A group with its name in messages, its measures, and the disk space that it needs in GB.
struct Group {
    name: &'static str,
    measures: &'static [Measure],
    room: u64,
    kind: Kind,
}

const fn group(name: &'static str, measures: &'static [Measure], room: u64, kind: Kind) -> Group {
    Group { name, measures, room, kind }
}

const SINGLE: &[Measure] = &[Measure::Cold, Measure::Unchanged, Measure::TopLayer];

/// All groups in the order of measurement, the most sensitive to load first.
const GROUPS: [Group; 13] = [
    group("wire", &[Measure::Wire], 4, Kind::Wire),
    group("export", &[Measure::Export], 2, Kind::Export),
    group("fleet", &[Measure::Fleet], 1, Kind::Fleet),
    group("single-overlay2", SINGLE, 10, Kind::Single(Store::Overlay2)),
    group("single-containerd", SINGLE, 12, Kind::Single(Store::Containerd)),
    group("four", &[Measure::Four, Measure::HostCost], 24, Kind::Four),
    group("seed-reflink", &[Measure::Seeds], 12, Kind::Reflink),
    group("seed-copy-overlay2", &[Measure::Seeds], 14, Kind::Copy(Store::Overlay2)),
    group("seed-copy-containerd", &[Measure::Seeds], 20, Kind::Copy(Store::Containerd)),
    group("ways-overlay2", &[Measure::Ways], 8, Kind::Ways(Store::Overlay2)),
    group("ways-containerd", &[Measure::Ways], 10, Kind::Ways(Store::Containerd)),
    group("memory", &[Measure::Memory], 12, Kind::Memory),
    group("large-layer", &[Measure::LargeLayer], 8, Kind::LargeLayer),
];

/// Runs the bench, prints the results and writes them.
///
/// # Errors
/// Nothing can be measured. A measure that fails gives a row with the reason, and exit code 3.
pub(crate) fn run(options: &Options) -> Result<Exit> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "the bench needs root, because peers use the engines inside ranges: run it as root"
    );
    let readme = crate::workspace::root().join("README.md");
    if options.write_readme {
        // Check it now, not after hours of measuring.
        output::check_readme(&readme)?;
    }
    let bench = Bench::prepare(options)?;
    let machine = interruptible(async {
        let machine = machine::Machine::here(&bench).await?;
        // Remove what a killed run left behind.
        bench.clear().await?;
        Ok(machine)
    })?;
    let Some(machine) = machine else {
        bench.say("interrupted before the first measure");
        return Ok(Exit::Interrupted);
    };
    let mut rows = Vec::new();
    let ended = interruptible(bench.measure_all(options.format, &mut rows));
    // Print and write results before anything else can fail, also after an interrupt.
    let reported = ended.and_then(|ended| match ended {
        Some(()) => report(options, &bench, &machine, &rows, &readme),
        None => report_interrupted(options, &bench, &machine, &rows),
    });
    let cleared = interruptible(bench.clear()).and_then(|_| testbed::remove(&bench.folder));
    let reported = reported?;
    cleared.context("cleaning up; the results are printed and written")?;
    Ok(reported)
}

/// Prints and writes the results of a complete run.
fn report(
    options: &Options,
    bench: &Bench,
    machine: &machine::Machine,
    rows: &[Row],
    readme: &Path,
) -> Result<Exit> {
    let default = (options.only.is_empty() && !options.quick)
        .then(|| crate::workspace::root().join("benches/results"));
    print_and_write(options, bench, machine, rows, options.out.clone().or(default))?;
    if options.write_readme {
        output::write_readme(readme, machine, rows)?;
    }
    Ok(Exit::whole(rows.iter().all(|row| row.ours.is_some())))
}

/// Prints and writes the results before an interrupt, without replacing those of a complete run.
fn report_interrupted(
    options: &Options,
    bench: &Bench,
    machine: &machine::Machine,
    rows: &[Row],
) -> Result<Exit> {
    bench.say("interrupted: the next bench starts from the beginning; results so far:");
    print_and_write(options, bench, machine, rows, options.out.clone())?;
    Ok(Exit::Interrupted)
}

/// Prints the rows, unless they were printed one by one, and writes them to a folder.
fn print_and_write(
    options: &Options,
    bench: &Bench,
    machine: &machine::Machine,
    rows: &[Row],
    folder: Option<PathBuf>,
) -> Result<()> {
    if options.format == Format::Text {
        println!("{}", output::table(rows));
    }
    if let Some(folder) = folder {
        output::write(&folder, machine, rows)?;
        bench.say(&format!("written to {}", folder.display()));
    }
    Ok(())
}

impl Bench {
    /// Sets up everything that the bench needs, including the peers' programs.
    fn prepare(options: &Options) -> Result<Self> {
        let started = Instant::now();
        let build = match &options.agents {
            None => Some(build::begin()?),
            Some(_) => None,
        };
        let machine = setup::ensure(&Needs { ranges: Ranges::Usual, stack: true })?;
        setup::ensure_peers()?;
        let agents = match (build, &options.agents) {
            (Some(build), _) => build.finish()?,
            (None, Some(folder)) => Agents::at(folder),
            (None, None) => build::agents()?,
        };
        let folder = State::open()?.bench();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("creating {}", folder.display()))?;
        let image = |word: &&str| {
            let found = machine.stack.iter().find(|image| image.contains(word));
            found
                .cloned()
                .with_context(|| format!("the demo stack has no image with {word:?} in its name"))
        };
        let words: &[&str] = if options.quick { &QUICK } else { &IMAGES };
        let images = words.iter().map(image).collect::<Result<_>>()?;
        Ok(Self {
            agents,
            folder,
            images,
            rounds: if options.quick { 1 } else { options.rounds.into() },
            quick: options.quick,
            only: options.only.clone(),
            started,
            machine,
        })
    }

    /// Adds the rows of all selected measures. A failed measure does not stop the others.
    async fn measure_all(&self, format: Format, rows: &mut Vec<Row>) -> Result<()> {
        let registry = Shared::default();
        for group in GROUPS {
            if !group.measures.iter().any(|measure| self.wants(*measure)) {
                continue;
            }
            let found = match self.check_disk(group.room) {
                Ok(()) => self.group(group.kind, &registry).await,
                Err(error) => Err(error),
            };
            let found = found.unwrap_or_else(|error| {
                vec![Row::failed(group.name, None, self.report_failure(group.name, &error))]
            });
            let found =
                found.into_iter().map(|row| if self.quick { row.without_goal() } else { row });
            let found: Vec<Row> = found.collect();
            if format == Format::Json {
                output::print_lines(&found)?;
            }
            rows.extend(found);
        }
        if let Err(error) = registry.end() {
            self.say(&format!("could not remove the registry's content: {error:#}"));
        }
        Ok(())
    }

    /// Fails if the disk lacks space for a group. A full disk would stop everything on this machine.
    fn check_disk(&self, gigabytes: u64) -> Result<()> {
        let free = free_bytes(&self.folder)? / 1_000_000_000;
        let enough = self.quick || gigabytes <= free;
        anyhow::ensure!(enough, "it needs {gigabytes} GB of disk, but only {free} GB are free");
        Ok(())
    }

    /// Removes everything that any bench has made in the engines of this machine.
    async fn clear(&self) -> Result<()> {
        xfs::clear(&self.folder)?;
        Testbed::start(self, 1).await?.end().await?;
        let host = Docker::at(self.host());
        for names in [&format!("{PROJECT}/*"), "127.0.0.1:*/longshore-demo/*"] {
            let filter = format!("reference={names}");
            let form = "{{.Repository}}:{{.Tag}}";
            let found = host.run(&["image", "ls", "--filter", &filter, "--format", form]).await?;
            host.remove_images(&found.lines().map(str::to_owned).collect::<Vec<_>>()).await;
        }
        Ok(())
    }

    async fn group(&self, kind: Kind, registry: &Shared) -> Result<Vec<Row>> {
        match kind {
            Kind::Wire => programs::wire(self).await,
            Kind::Export => programs::export(self).await,
            Kind::Fleet => programs::fleet(self).await,
            Kind::Single(store) => single::run(self, registry, store).await,
            Kind::Four => four::run(self).await,
            Kind::Ways(store) => load_methods::run(self, store).await,
            Kind::Reflink => seeds::reflink(self).await,
            Kind::Copy(store) => seeds::copy(self, store).await,
            Kind::Memory => memory::many(self).await,
            Kind::LargeLayer => memory::flat(self).await,
        }
    }
}
