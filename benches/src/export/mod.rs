//! Reading a host's layers beside `docker save` to `/dev/null`.
//!
//! ```text
//!  measure              ours                                    peer
//!  export-layer         the image's largest layer, as it is     save of an image of that layer alone
//!                       passed on to a range, which verifies
//!  export-layer-hashed  the same, verified here, as it is kept  the same
//!  export-image         every layer of it, one after another    save of the image
//!  export-first-byte    open a layer → its first frame, of the  save of the largest layer alone →
//!                       layer that takes longest                its first byte
//! ```
//! Each round takes ours and the peer in turn, the other one first the next time. Both read with the page
//! cache alike: warmed by a read that is not counted, or emptied before each.

mod line;
mod ours;
mod save;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use engine::Docker;
use engine::docker::way::{Places, Way};
use transfer::{Reference, StoreKind};

pub use self::line::Line;
use self::ours::{Ours, Verified};
use self::save::{OneLayer, Save};

/// What the page cache has before each read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// What the last read left there.
    Warm,
    /// Nothing.
    Cold,
}

impl Cache {
    fn prepare(self) -> anyhow::Result<()> {
        rustix::fs::sync();
        match self {
            Self::Warm => Ok(()),
            Self::Cold => {
                std::fs::write("/proc/sys/vm/drop_caches", "3").context("emptying the page cache")
            }
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The engine's address.
    pub docker: String,
    /// The image.
    pub image: Reference,
    /// How often each measure is taken.
    pub rounds: usize,
    /// Where the engine's files are.
    pub places: Places,
    /// What the page cache has.
    pub cache: Cache,
    /// Every way that the engine has, or only those with a goal.
    pub all: bool,
}

/// What one read took.
#[derive(Clone, Copy, Debug)]
struct Took {
    bytes: u64,
    time: Duration,
    /// CPU time of this process meanwhile; zero for a peer, whose work is the engine's.
    cpu: Duration,
}

/// Takes every measure of one image and tells each as it is known.
///
/// # Errors
/// The engine does not answer, has no such image, or a read failed.
pub async fn run(options: &Options, mut tell: impl FnMut(&Line)) -> anyhow::Result<()> {
    let docker = Docker::connect(&options.docker).await?;
    let store = docker.info().await?.store;
    for way in Way::ALL.into_iter().filter(|way| is_measured(*way, store, options.all)) {
        match Ours::open(&docker, way, options).await {
            Ok(ours) => measure(options, &ours, &mut tell).await?,
            // The way that is taken by itself must be there; others may lack files or a socket here.
            Err(error) if is_default(way, store) => return Err(error),
            Err(error) => note(way, &error),
        }
    }
    Ok(())
}

/// The way that an agent takes where nothing is said.
fn is_default(way: Way, store: StoreKind) -> bool {
    way == match store {
        StoreKind::Graphdriver => Way::Files,
        StoreKind::Containerd => Way::ContentService,
    }
}

fn is_measured(way: Way, store: StoreKind, all: bool) -> bool {
    let other_store = (way == Way::Files) != (store == StoreKind::Graphdriver) && way != Way::Save;
    is_default(way, store) || (all && !other_store)
}

#[expect(clippy::print_stderr, reason = "said beside the lines, not among them")]
fn note(way: Way, error: &anyhow::Error) {
    eprintln!("{way} is not measured: {error:#}");
}

async fn measure(
    options: &Options,
    ours: &Ours,
    tell: &mut impl FnMut(&Line),
) -> anyhow::Result<()> {
    let save = Save::new(&options.docker);
    let about = |measure, unit, goal| Line {
        measure,
        store: ours.store(),
        image: options.image.to_string(),
        way: ours.way(),
        cache: options.cache,
        rounds: options.rounds,
        unit,
        goal,
        ours: Vec::new(),
        peers: BTreeMap::new(),
        cpu: Vec::new(),
    };
    let goals = ours.has_goals();

    let name = options.image.to_string();
    let mut image = about("export-image", "MB/s", goals.then_some(2.0));
    for round in 0..=options.rounds {
        let mine = async |line: &mut Line| line.add_ours(round, ours.image(options).await?);
        let theirs = async |line: &mut Line| line.add_peer(round, save.whole(&name, options)?);
        in_turn(round, &mut image, mine, theirs).await?;
    }
    tell(&image);

    if !ours.single_layers() {
        return Ok(());
    }
    let alone = OneLayer::import(&save, ours).await?;
    let layers = [
        ("export-layer", goals.then_some(3.0), Verified::ByReader),
        ("export-layer-hashed", None, Verified::BySource),
    ];
    for (measure, goal, verified) in layers {
        let mut layer = about(measure, "MB/s", goal);
        for round in 0..=options.rounds {
            let mine = async |line: &mut Line| {
                line.add_ours(round, ours.largest(options, verified).await?)
            };
            let theirs =
                async |line: &mut Line| line.add_peer(round, save.whole(&alone.name, options)?);
            in_turn(round, &mut layer, mine, theirs).await?;
        }
        tell(&layer);
    }

    let mut first = about("export-first-byte", "s", goals.then_some(0.2));
    for round in 0..=options.rounds {
        let mine = async |line: &mut Line| line.add_ours(round, ours.first_byte(options).await?);
        let theirs =
            async |line: &mut Line| line.add_peer(round, save.first_byte(&alone.name, options)?);
        in_turn(round, &mut first, mine, theirs).await?;
    }
    tell(&first);
    Ok(())
}

/// One round: both sides, the other one first each time.
async fn in_turn(
    round: usize,
    line: &mut Line,
    mine: impl AsyncFn(&mut Line) -> anyhow::Result<()>,
    theirs: impl AsyncFn(&mut Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if round.is_multiple_of(2) {
        mine(line).await?;
        theirs(line).await
    } else {
        theirs(line).await?;
        mine(line).await
    }
}

/// What an image of the engine is called in the lines, for each store.
fn store_name(store: StoreKind) -> &'static str {
    match store {
        StoreKind::Graphdriver => "overlay2",
        StoreKind::Containerd => "containerd",
    }
}
