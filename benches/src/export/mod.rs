//! Reads of a host's layers, compared with `docker save` to `/dev/null`.
//!
//! ```text
//!  measure              ours                                    peer
//!  export-layer         the image's largest layer, unverified,  save of an image with only that layer
//!                       as for a single range that verifies it
//!  export-layer-hashed  the same, verified, as for the store    the same
//!  export-image         all layers, one after another           save of the image
//!  export-first-byte    open to first frame, of the slowest     save of the largest layer, until its
//!                       layer                                   first byte
//! ```
//! Each round runs both sides, in alternating order. The page cache is the same for both: warmed by an
//! uncounted round, or emptied before each read.

mod measurement;
mod options;
mod ours;
mod save;

use std::collections::BTreeMap;

use engine::Docker;
use engine::docker::way::Way;
use transfer::StoreKind;

pub use self::measurement::Measurement;
pub use self::options::{Cache, Options};
use self::ours::{Ours, VerifiedBy};
use self::save::{OneLayer, Save};

/// Takes every measure of one image, and emits each when it is complete.
///
/// # Errors
/// The engine does not answer, lacks the image, or a read fails.
pub async fn run(options: &Options, mut emit: impl FnMut(&Measurement)) -> anyhow::Result<()> {
    let docker = Docker::connect(&options.docker).await?;
    let store = docker.info().await?.store;
    for way in Way::ALL.into_iter().filter(|way| is_measured(*way, store, options.all)) {
        match Ours::open(&docker, way, options).await {
            Ok(ours) => measure(options, &ours, &mut emit).await?,
            // The default method must work; others may lack files or a socket on this machine.
            Err(error) if is_default(way, store) => return Err(error),
            Err(error) => note(way, &error),
        }
    }
    Ok(())
}

/// Reports whether `way` is the export method that an agent uses by default.
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

#[expect(clippy::print_stderr, reason = "a note beside the JSON lines on stdout")]
fn note(way: Way, error: &anyhow::Error) {
    eprintln!("export method {way} is not measured: {error:#}");
}

async fn measure(
    options: &Options,
    ours: &Ours,
    emit: &mut impl FnMut(&Measurement),
) -> anyhow::Result<()> {
    let save = Save::new(&options.docker);
    let about = |measure, unit, goal| Measurement {
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
        let mine = async |line: &mut Measurement| line.add_ours(round, ours.image(options).await?);
        let theirs =
            async |line: &mut Measurement| line.add_peer(round, save.whole(&name, options)?);
        in_turn(round, &mut image, mine, theirs).await?;
    }
    emit(&image);

    if !ours.has_single_layers() {
        return Ok(());
    }
    let only_layer = OneLayer::import(&save, ours).await?;
    let layers = [
        ("export-layer", goals.then_some(3.0), VerifiedBy::Reader),
        ("export-layer-hashed", None, VerifiedBy::Source),
    ];
    for (measure, goal, verified) in layers {
        let mut layer = about(measure, "MB/s", goal);
        for round in 0..=options.rounds {
            let mine = async |line: &mut Measurement| {
                line.add_ours(round, ours.largest(options, verified).await?)
            };
            let theirs = async |line: &mut Measurement| {
                line.add_peer(round, save.whole(&only_layer.name, options)?)
            };
            in_turn(round, &mut layer, mine, theirs).await?;
        }
        emit(&layer);
    }

    let mut first = about("export-first-byte", "s", goals.then_some(0.2));
    for round in 0..=options.rounds {
        let mine =
            async |line: &mut Measurement| line.add_ours(round, ours.first_byte(options).await?);
        let theirs = async |line: &mut Measurement| {
            line.add_peer(round, save.first_byte(&only_layer.name, options)?)
        };
        in_turn(round, &mut first, mine, theirs).await?;
    }
    emit(&first);
    Ok(())
}

/// Runs both sides of a round, in alternating order.
async fn in_turn(
    round: usize,
    line: &mut Measurement,
    mine: impl AsyncFn(&mut Measurement) -> anyhow::Result<()>,
    theirs: impl AsyncFn(&mut Measurement) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if round.is_multiple_of(2) {
        mine(line).await?;
        theirs(line).await
    } else {
        theirs(line).await?;
        mine(line).await
    }
}
