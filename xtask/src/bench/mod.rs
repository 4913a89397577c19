//! `cargo xtask bench`: whole provisioning beside what a user would pick instead, in one run.
//!
//! ```text
//! setup ► agents ► for each measure: rounds, in each of which everybody has a turn ► rows ► files
//! ```
//! Who is measured takes turns, since what a machine does in a minute differs by more than what is
//! measured here; each begins with fresh ranges and a file system at rest. Page caches are warm for
//! all: the host's images were read by whoever came before.

mod alone;
mod docker;
mod four;
mod layer;
mod machine;
mod memory;
mod output;
mod outside;
mod plot;
mod process;
mod registry;
mod row;
mod seeds;
mod site;
mod skopeo;
mod thin;
mod ways;
mod xfs;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::sync::OnceCell;

use self::docker::Docker;
use self::registry::Registry;
use self::row::Row;
use self::site::{PROJECT, Site};
use crate::build::{self, Agents};
use crate::exit::Exit;
use crate::range::interruptible;
use crate::setup::{self, Machine, Needs, Ranges, State, Store};

/// The images of the demo stack that everybody moves, by words of their names: the small one is
/// left out, since a tenth of a second does not show in anybody's figures.
const IMAGES: [&str; 4] = ["llvm", "python", "node", "postgres"];

/// What is moved when it is only to be seen that it works.
const QUICK: [&str; 1] = ["tiny"];

/// What is to be measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How results are printed on stdout; progress goes to stderr.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// How often everybody has a turn; the figures are medians.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// One round with the smallest image alone: shows that it works, measures nothing.
    #[arg(long, conflicts_with = "rounds")]
    quick: bool,
    /// Only these measures; commas between, or several times. Then nothing is written unless --out
    /// says where.
    #[arg(long, value_name = "MEASURE", value_enum, value_delimiter = ',')]
    only: Vec<Measure>,
    /// The folder for bench.json, table.md and the plots; benches/results unless said.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Puts the table into README.md, between its markers.
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    write_readme: bool,
    /// A folder with both agents, to measure those instead of what the sources are now.
    #[arg(long, value_name = "FOLDER")]
    agents: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What can be measured; several of them give more than one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// One live cold range, on both stores, beside all peers.
    Cold,
    /// A sync in which nothing changed, on both stores.
    Unchanged,
    /// A layer of 21 MB more, on both stores.
    TopLayer,
    /// Four live cold ranges at once.
    Four,
    /// What four ranges cost the host, beside one.
    HostCost,
    /// The ways into a range's engine, each forced.
    Ways,
    /// A cold range from a seed: by reflink, and by plain copy on both stores.
    Seeds,
    /// Twenty images in fifty ranges where nothing changed, on engine fixtures.
    Fleet,
    /// The wire beside raw sockets.
    Wire,
    /// Export from a host's files, beside save.
    Export,
    /// Peak memory with sixteen ranges at once.
    Memory,
    /// Peak memory with a large layer, beside a small one.
    LargeLayer,
}

/// What is measured together, since it shares ranges.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Wire,
    Export,
    Fleet,
    Alone(Store),
    Four,
    Ways(Store),
    Reflink,
    Copy(Store),
    Memory,
    LargeLayer,
}

/// A group with its name in messages, the measures that it is for, and the disk that it takes at
/// most, in GB.
struct Group {
    name: &'static str,
    measures: &'static [Measure],
    room: u64,
    kind: Kind,
}

const fn group(name: &'static str, measures: &'static [Measure], room: u64, kind: Kind) -> Group {
    Group { name, measures, room, kind }
}

const ALONE: &[Measure] = &[Measure::Cold, Measure::Unchanged, Measure::TopLayer];

/// Everything, in the order in which it is measured: what needs a quiet machine most comes first.
const GROUPS: [Group; 13] = [
    group("wire", &[Measure::Wire], 4, Kind::Wire),
    group("export", &[Measure::Export], 2, Kind::Export),
    group("fleet", &[Measure::Fleet], 1, Kind::Fleet),
    group("alone-overlay2", ALONE, 10, Kind::Alone(Store::Overlay2)),
    group("alone-containerd", ALONE, 12, Kind::Alone(Store::Containerd)),
    group("four", &[Measure::Four, Measure::HostCost], 24, Kind::Four),
    group("seed-reflink", &[Measure::Seeds], 12, Kind::Reflink),
    group("seed-copy-overlay2", &[Measure::Seeds], 14, Kind::Copy(Store::Overlay2)),
    group("seed-copy-containerd", &[Measure::Seeds], 20, Kind::Copy(Store::Containerd)),
    group("ways-overlay2", &[Measure::Ways], 8, Kind::Ways(Store::Overlay2)),
    group("ways-containerd", &[Measure::Ways], 10, Kind::Ways(Store::Containerd)),
    group("memory", &[Measure::Memory], 12, Kind::Memory),
    group("large-layer", &[Measure::LargeLayer], 8, Kind::LargeLayer),
];

/// A bench under way.
#[derive(Debug)]
struct Bench {
    machine: Machine,
    agents: Agents,
    /// All of its own files, in set-up's state folder.
    folder: PathBuf,
    images: Vec<String>,
    rounds: usize,
    quick: bool,
    only: Vec<Measure>,
    started: Instant,
    registry: OnceCell<Registry>,
}

/// Measures, prints and writes.
///
/// # Errors
/// When nothing can be measured at all; a measure that fails is a row that says so, and exit code 3.
pub(crate) fn run(options: &Options) -> Result<Exit> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "only root reaches the engines inside ranges, as their peers have to: run the bench as root"
    );
    let readme = crate::root().join("README.md");
    if options.write_readme {
        // Before hours of measuring, not after.
        output::check_readme(&readme)?;
    }
    let bench = Bench::prepared(options)?;
    let machine = interruptible(async {
        let machine = machine::Machine::here(&bench).await?;
        // What a run that was killed left is in this one's way.
        bench.cleared().await?;
        Ok(machine)
    })?;
    let Some(machine) = machine else {
        bench.say("interrupted before anything was measured");
        return Ok(Exit::Interrupted);
    };
    let mut rows = Vec::new();
    let ended = interruptible(bench.measured(options.format, &mut rows));
    // What was measured is kept before anything else can go wrong, an interrupt included.
    let told = ended.and_then(|ended| match ended {
        Some(()) => tell(options, &bench, &machine, &rows, &readme),
        None => tell_interrupted(options, &bench, &machine, &rows),
    });
    let cleared = interruptible(bench.cleared()).and_then(|_| site::remove(&bench.folder));
    let told = told?;
    cleared.context("clearing up; what was measured is told and written")?;
    Ok(told)
}

/// Prints and writes what a whole run measured.
fn tell(
    options: &Options,
    bench: &Bench,
    machine: &machine::Machine,
    rows: &[Row],
    readme: &Path,
) -> Result<Exit> {
    let default =
        (options.only.is_empty() && !options.quick).then(|| crate::root().join("benches/results"));
    leave(options, bench, machine, rows, options.out.clone().or(default))?;
    if options.write_readme {
        output::write_readme(readme, machine, rows)?;
    }
    Ok(Exit::whole(rows.iter().all(|row| row.ours.is_some())))
}

/// The same of what was measured before an interrupt; results of a whole run stay what they are.
fn tell_interrupted(
    options: &Options,
    bench: &Bench,
    machine: &machine::Machine,
    rows: &[Row],
) -> Result<Exit> {
    bench.say("interrupted; the next bench begins from the start; what was measured until now:");
    leave(options, bench, machine, rows, options.out.clone())?;
    Ok(Exit::Interrupted)
}

/// Prints the rows, unless each was printed as it came, and writes them to a folder.
fn leave(
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
    /// With everything there that is needed, the peers' programs included.
    fn prepared(options: &Options) -> Result<Self> {
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
            found.cloned().with_context(|| format!("the demo stack has no {word}"))
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
            registry: OnceCell::new(),
            machine,
        })
    }

    /// Adds all rows that are wanted. One that fails does not stop the others.
    async fn measured(&self, format: Format, rows: &mut Vec<Row>) -> Result<()> {
        for group in GROUPS {
            if !group.measures.iter().any(|measure| self.wants(*measure)) {
                continue;
            }
            let found = match self.room(group.room) {
                Ok(()) => self.group(group.kind).await,
                Err(error) => Err(error),
            };
            let found = found.unwrap_or_else(|error| {
                vec![Row::absent(group.name, None, self.failed(group.name, &error))]
            });
            let found = found.into_iter().map(|row| if self.quick { row.unjudged() } else { row });
            let found: Vec<Row> = found.collect();
            if format == Format::Json {
                output::print_lines(&found)?;
            }
            rows.extend(found);
        }
        if let Some(registry) = self.registry.get()
            && let Err(error) = registry.end()
        {
            self.say(&format!("the registry did not end: {error:#}"));
        }
        Ok(())
    }

    /// Fails where the disk has no room for a group: full, it would stop everybody on this machine.
    fn room(&self, gigabytes: u64) -> Result<()> {
        let free = free_bytes(&self.folder)? / 1_000_000_000;
        let enough = self.quick || gigabytes <= free;
        anyhow::ensure!(enough, "it needs {gigabytes} GB of disk, and {free} are free");
        Ok(())
    }

    /// Removes what a bench makes in the engines of this machine, whoever made it.
    async fn cleared(&self) -> Result<()> {
        xfs::clear(&self.folder)?;
        Site::start(self, 1).await?.end().await?;
        let host = Docker::at(self.host());
        for names in [&format!("{PROJECT}/*"), "127.0.0.1:*/longshore-demo/*"] {
            let filter = format!("reference={names}");
            let form = "{{.Repository}}:{{.Tag}}";
            let found = host.run(&["image", "ls", "--filter", &filter, "--format", form]).await?;
            host.forget(&found.lines().map(str::to_owned).collect::<Vec<_>>()).await;
        }
        Ok(())
    }

    async fn group(&self, kind: Kind) -> Result<Vec<Row>> {
        match kind {
            Kind::Wire => outside::wire(self).await,
            Kind::Export => outside::export(self).await,
            Kind::Fleet => outside::fleet(self).await,
            Kind::Alone(store) => alone::run(self, store).await,
            Kind::Four => four::run(self).await,
            Kind::Ways(store) => ways::run(self, store).await,
            Kind::Reflink => seeds::reflink(self).await,
            Kind::Copy(store) => seeds::copy(self, store).await,
            Kind::Memory => memory::many(self).await,
            Kind::LargeLayer => memory::flat(self).await,
        }
    }

    fn wants(&self, measure: Measure) -> bool {
        self.only.is_empty() || self.only.contains(&measure)
    }

    /// The engine that images come from.
    fn host(&self) -> &str {
        &self.machine.docker_host
    }

    /// The range image that is taken for a store when nobody says.
    fn range_image(&self, store: Store) -> Result<&str> {
        let found = self.machine.range_images.iter().find(|image| image.store == store);
        let found = found.with_context(|| format!("set-up made no range image on {store}"))?;
        Ok(&found.reference)
    }

    /// The registry with the images in it; pushed to when first asked for.
    async fn registry(&self) -> Result<&Registry> {
        let filled = async {
            self.say("docker-registry: pushing, once for all ranges");
            Registry::filled(&self.folder, &Docker::at(self.host()), &self.images).await
        };
        self.registry.get_or_try_init(|| filled).await
    }

    /// Says that somebody's turn came to nothing, and answers the words for the result.
    fn failed(&self, who: &str, error: &anyhow::Error) -> String {
        let words = format!("{who} failed: {error:#}");
        self.say(&words);
        words
    }

    /// Progress, for whoever waits.
    fn say(&self, words: &str) {
        eprintln!("{:6.1} s  {words}", self.started.elapsed().as_secs_f64());
    }
}

/// Bytes that the file system of `folder` has left for us.
fn free_bytes(folder: &Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder)
        .with_context(|| format!("looking at the disk of {}", folder.display()))?;
    Ok(found.f_bavail * found.f_frsize)
}
