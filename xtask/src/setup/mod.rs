//! Set-up: from a bare machine to an engine, range images and a demo stack in one call.
//!
//! ```text
//! ensure ─┬─ state     the folder of everything, and its lock
//!         ├─ packages  missing programs, from the distribution
//!         ├─ engine    the machine's engine, or a private one (network: its bridge)
//!         ├─ images    the range images (rootfs: Debian roots; probe: the engine inside)
//!         └─ stack     the demo stack
//! teardown             removes all of it
//! ```
//! Every step checks before it acts, and gives a result its final name only once it is complete. So a
//! second call only checks, and a call after a kill resumes the interrupted one.

mod agents;
mod volumes;
mod command;
mod docker;
mod engine;
mod files;
mod images;
mod machine;
mod network;
mod own_image;
mod packages;
mod probe;
mod rootfs;
mod skopeo;
mod stack;
mod state;
mod step;
mod teardown;

use anyhow::Result;

pub(crate) use self::agents::image as agents_image;
pub(crate) use self::command::{command, find};
pub(crate) use self::images::needed_for as ranges_needed_for;
pub(crate) use self::machine::{LABEL, Machine, Needs, Ranges, Store};
pub(crate) use self::skopeo::image as skopeo_image;
pub(crate) use self::state::State;
pub(crate) use self::teardown::{stop_agents, teardown};

/// Installs the programs that compile the agents, if needed.
///
/// # Errors
/// They cannot be installed; the message says how to install them.
pub(crate) fn ensure_compiler() -> Result<()> {
    packages::ensure(&State::open()?, packages::BUILD)
}

/// Installs skopeo, which tests use to check folders and archives of images, if needed.
///
/// # Errors
/// It cannot be installed; the message says how to install it.
pub(crate) fn ensure_skopeo() -> Result<()> {
    packages::ensure(&State::open()?, packages::SKOPEO)
}

/// Installs the programs of a bench's peers, if needed.
///
/// # Errors
/// They cannot be installed; the message says how to install them.
pub(crate) fn ensure_peers() -> Result<()> {
    packages::ensure(&State::open()?, packages::PEERS)
}

/// Installs npm, which installs the schema's linter, if needed.
///
/// # Errors
/// It cannot be installed; the message says how to install it.
pub(crate) fn ensure_npm() -> Result<()> {
    packages::ensure(&State::open()?, packages::SCHEMA)
}

/// Sets the machine up for `needs`, and describes the result.
///
/// Prints one line per step to stderr. Concurrent callers share the work: the second one waits for the
/// first and finds everything done.
///
/// # Errors
/// Something is missing, and the message says how to get it; or a step failed, and the message has the
/// end of its program's output.
pub(crate) fn ensure(needs: &Needs) -> Result<Machine> {
    let state = State::open()?;
    let _lock = state.lock()?;
    let engine = engine::ensure(&state)?;
    let (range_images, stack) = std::thread::scope(|scope| -> Result<_> {
        // The stack's base is a Debian root too, so bootstrap it in parallel with the ranges' roots.
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

/// Sets everything up, and prints the result to stdout.
///
/// # Errors
/// [`ensure`] fails.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn show(ranges: Ranges) -> Result<()> {
    let machine = ensure(&Needs { ranges, stack: true })?;
    let kind = if machine.private_engine { "private" } else { "already there" };
    println!("engine  {} ({kind})", machine.docker_host);
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

/// The address of the engine that [`ensure`] would use, for commands that start and install nothing.
///
/// # Errors
/// No engine answers.
pub(crate) fn engine_host(state: &State) -> Result<String> {
    match engine::present(state)? {
        Some(host) => Ok(host),
        None => {
            let named = std::env::var("DOCKER_HOST").unwrap_or_default();
            let also =
                if named.is_empty() { named } else { format!(", including DOCKER_HOST={named}") };
            anyhow::bail!(
                "no engine answers on this machine{also}: run `cargo xtask setup` to start one"
            )
        }
    }
}
