//! `cargo xtask range`: the verbs of `longshore range`, over a site that set-up makes.

mod place;

use anyhow::Result;
use longshore::range::{Command, Seeds};
use process::exit::Exit;
use range::RangeError;

pub(crate) use self::place::Place;

/// Shown under `range --help`.
pub(crate) const ABOUT: &str = "\
The verbs and flags of `longshore range`. `up` first makes what is missing: an engine, range images, both \
agents, a host agent that runs. Its --range-image also takes `overlay2` (the default) or `containerd` for \
the usual range image with that image store, and `26.1-overlay2`, `28.5-overlay2`, `28.5-containerd` or \
`20.10-overlay2` for one of them in particular.
Exit codes: 0 done, 1 failure, 2 usage, 3 some ranges or images failed, 130 interrupted.";

/// The error with its next step, for the last line of a command.
pub(crate) fn told(error: &RangeError) -> anyhow::Error {
    anyhow::anyhow!("{}", error.explain())
}

/// Makes what the verb needs, and carries it out.
///
/// # Errors
/// Those of set-up and of the verb.
pub(crate) fn run(mut command: Command) -> Result<Exit> {
    let site = match &mut command {
        Command::Up(up) if up.is_dry_run() => Place::for_looking()?.site(),
        Command::Up(up) => Place::for_up(up.range_image.take().as_deref())?.site(),
        Command::Sync(sync) if !sync.is_dry_run() => Place::for_sync()?.site(),
        Command::Down(_) => Place::for_down()?.site(),
        Command::Seeds(seeds) if Seeds::removes(seeds) => Place::for_down()?.site(),
        _ => Place::as_it_is()?.site(),
    };
    longshore::range::run(&command, &site)
}
