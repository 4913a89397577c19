//! Set-up: from a bare machine to an engine, range images and a demo stack, by one call.
//!
//! ```text
//! ensure ─┬─ state     the folder everything lies in, and the lock over it
//!         ├─ packages  programs that are missing, from the distribution
//!         ├─ engine    the machine's engine, or a private one (network: its bridge)
//!         ├─ images    the range images (rootfs: Debian roots; probe: what is really inside)
//!         └─ stack     the demo stack
//! teardown             the way back
//! ```
//! Every step looks before it acts, and leaves what it makes under its final name only once it is
//! whole. So a second call is a handful of look-ups, and a call after a kill goes on where the last
//! one stopped.

mod agents;
mod apart;
mod command;
mod docker;
mod engine;
mod images;
mod network;
mod packages;
mod probe;
mod rootfs;
mod skopeo;
mod stack;
mod state;
mod step;
mod teardown;

use anyhow::Result;

use self::docker::Docker;

pub(crate) use self::agents::image as agents_image;
pub(crate) use self::command::{command, find};
pub(crate) use self::skopeo::image as skopeo_image;
pub(crate) use self::state::State;
pub(crate) use self::teardown::{stop_agents, teardown};

/// The label of every container, volume and network that we make, so that teardown finds it again.
pub(crate) const LABEL: &str = "dev.longshore=1";

/// The label of every image that we make: the [fingerprint](step::fingerprint) of its recipe.
///
/// Not [`LABEL`]: a container inherits its image's labels, and one that somebody else started from an
/// image of ours is not ours.
const RECIPE_LABEL: &str = "dev.longshore.recipe";

/// What a command needs of the machine, besides an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Range images.
    pub(crate) ranges: Ranges,
    /// The demo stack in the engine that images come from.
    pub(crate) stack: bool,
}

/// Which range images are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    /// None that set-up makes.
    None,
    /// One for each engine and image store of these days.
    Usual,
    /// With the oldest engine that is supported, too.
    All,
}

impl Ranges {
    /// What the range image with this name needs, such as `28.5-overlay2`; absent for a name that set-up
    /// does not know.
    pub(crate) fn needed_for(name: &str) -> Option<Self> {
        images::needed_for(name)
    }
}

/// A machine that is set up.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The engine that holds the stack and runs the ranges, as `unix:///…`.
    pub(crate) docker_host: String,
    /// Whether that engine is ours: then teardown stops it and removes all that it holds.
    pub(crate) private_engine: bool,
    /// Those of [`Needs::ranges`], the first of each store the one to take when nobody says.
    pub(crate) range_images: Vec<RangeImage>,
    /// References of the demo stack; empty when [`Needs::stack`] was not asked for.
    pub(crate) stack: Vec<String>,
}

/// An image that a range is started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeImage {
    /// The image's name in the engine that runs the ranges.
    pub(crate) reference: String,
    /// The version that the engine inside said it has, never one read from a name.
    pub(crate) engine_version: String,
    /// The image store that the engine inside said it uses.
    pub(crate) store: Store,
}

/// Which of Docker's two image stores an engine uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Store {
    /// The graphdriver store, with overlay2.
    Overlay2,
    /// The containerd store.
    Containerd,
}

impl std::fmt::Display for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Overlay2 => "overlay2",
            Self::Containerd => "containerd",
        })
    }
}

/// Makes sure that the agents can be compiled.
///
/// # Errors
/// What is missing and how to get it, or apt's own.
pub(crate) fn ensure_compiler() -> Result<()> {
    packages::ensure(&State::open()?, packages::BUILD)
}

/// Makes sure that there is a second opinion on folders and archives of images.
///
/// # Errors
/// What is missing and how to get it, or apt's own.
pub(crate) fn ensure_skopeo() -> Result<()> {
    packages::ensure(&State::open()?, packages::SKOPEO)
}

/// Makes sure that there is what a bench measures beside.
///
/// # Errors
/// What is missing and how to get it, or apt's own.
pub(crate) fn ensure_peers() -> Result<()> {
    packages::ensure(&State::open()?, packages::PEERS)
}

/// Makes sure that the schema's linter can be installed.
///
/// # Errors
/// What is missing and how to get it, or apt's own.
pub(crate) fn ensure_npm() -> Result<()> {
    packages::ensure(&State::open()?, packages::SCHEMA)
}

/// Brings the machine to where `needs` are met, and says what it has.
///
/// One line per step goes to stderr. Two callers at once do not do the work twice: the second waits
/// for the first and finds everything done.
///
/// # Errors
/// What is missing and how to get it, or which step failed with the end of that program's output.
pub(crate) fn ensure(needs: &Needs) -> Result<Machine> {
    let state = State::open()?;
    let _lock = state.lock()?;
    let engine = engine::ensure(&state)?;
    let (range_images, stack) = std::thread::scope(|scope| -> Result<_> {
        // The stack's base is a Debian root too: bootstrapped beside the ranges', not after them.
        let base = needs.stack.then(|| scope.spawn(|| stack::ensure_base(&engine.docker, &state)));
        let range_images = images::ensure(&engine.docker, &state, needs.ranges)?;
        let Some(base) = base else { return Ok((range_images, Vec::new())) };
        step::join(base)?;
        Ok((range_images, stack::ensure(&engine.docker, &state)?))
    })?;
    Ok(Machine {
        docker_host: engine.docker.host().to_owned(),
        private_engine: engine.private,
        range_images,
        stack,
    })
}

/// Makes an image of ours by `make`, which says whether it had to, and answers what it is called.
///
/// # Errors
/// When no engine can be had, or those of `make`.
fn ensure_image(
    reference: &str,
    make: impl FnOnce(&Docker, &State) -> Result<bool>,
) -> Result<String> {
    let state = State::open()?;
    let _lock = state.lock()?;
    let engine = engine::ensure(&state)?;
    step::step(&format!("image {reference}"), || {
        let made = make(&engine.docker, &state)?;
        Ok((reference.to_owned(), (if made { "built" } else { "there" }).to_owned()))
    })
}

/// Sets up all there is, and says on stdout what that is.
///
/// # Errors
/// Those of [`ensure`].
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn show(ranges: Ranges) -> Result<()> {
    let machine = ensure(&Needs { ranges, stack: true })?;
    let whose = if machine.private_engine { "private" } else { "already there" };
    println!("engine  {} ({whose})", machine.docker_host);
    for image in &machine.range_images {
        println!(
            "range   {} (engine {}, {} store)",
            image.reference, image.engine_version, image.store
        );
    }
    for reference in &machine.stack {
        println!("stack   {reference}");
    }
    Ok(())
}

/// The engine that [`ensure`] would use, as `unix:///…`, for commands that only look at what is
/// there: nothing is started or installed.
///
/// # Errors
/// When no engine answers.
pub(crate) fn engine_host(state: &State) -> Result<String> {
    match engine::present(state)? {
        Some(host) => Ok(host),
        None => {
            let named = std::env::var("DOCKER_HOST").unwrap_or_default();
            let also = if named.is_empty() {
                named
            } else {
                format!(", not at DOCKER_HOST={named} either")
            };
            anyhow::bail!("no engine answers here{also}; `cargo xtask setup` starts one")
        }
    }
}
