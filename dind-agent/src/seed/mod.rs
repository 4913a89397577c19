//! Seeds: the data of a stopped range, sealed once and copied for each range that is new.
//!
//! ```text
//!   ROOT/data    the engine's data-root           seal    the stopped builder, in place: its data is the seed
//!       /agent   the dind agent's state    clone   a sealed root into an empty one
//!       /agent/seal   written last: the tree as it must be
//! ```
//! `range up` runs both in a short container, with volumes mounted as `data` and `agent`: so they
//! work on any disk of the engine, for every user that may create a range.
//!
//! A tree is used only while it matches its seal: each path with its kind, size, mode, owner,
//! times and the kernel's own time of change, which nobody can set back. A copy of bytes compares each
//! file's checksum on the way; a reflink copies none, so it does not.

mod clone;
mod copy;
mod error;
mod seal;
mod tree;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use process::exit::Exit;
use serde::Serialize;

use self::error::SeedError;

/// Commands on seeds. For `range up`, not for people.
#[derive(Clone, Debug, Subcommand)]
pub enum Seed {
    /// Seal the data of a range whose engine was stopped in order.
    Seal(Seal),
    /// Copy sealed data, after checking that it is what its seal says.
    Clone(Copy),
}

/// Arguments of `seal`.
#[derive(Clone, Debug, Args)]
pub struct Seal {
    /// The folder with `data` and `agent`.
    #[arg(long, value_name = "FOLDER")]
    pub root: PathBuf,
    /// Key of the seed.
    #[arg(long, value_name = "KEY")]
    pub key: String,
}

/// Arguments of `clone`.
#[derive(Clone, Debug, Args)]
pub struct Copy {
    /// The sealed folder.
    #[arg(long, value_name = "FOLDER")]
    pub from: PathBuf,
    /// An empty folder with `data` and `agent`, both empty.
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Key of the seed.
    #[arg(long, value_name = "KEY")]
    pub key: String,
}

/// Result: the one line on stdout, which the caller finds by its first key.
#[derive(Debug, Serialize)]
#[serde(tag = "seed", rename_all = "lowercase")]
enum Ended {
    /// It is sealed.
    Sealed { entries: u64, bytes: u64 },
    /// It is copied.
    Cloned { entries: u64, bytes: u64, reflinked: u64, seconds: f64 },
    /// The seed is not to be used by anybody.
    Unusable { reason: String },
}

/// Does it, on this thread and some of its own.
///
/// # Errors
/// What could not be read or written. A seed that is not to be used is no error, but a result.
pub async fn run(seed: Seed) -> anyhow::Result<Exit> {
    let done = tokio::task::spawn_blocking(move || match seed {
        Seed::Seal(it) => seal_in_place(&it),
        Seed::Clone(it) => clone_into(&it),
    });
    let ended = done.await.context("working on a seed")??;
    print(&ended)?;
    Ok(Exit::Ok)
}

fn seal_in_place(it: &Seal) -> anyhow::Result<Ended> {
    tree::clear_leftovers(&it.root).context("removing what an engine leaves behind")?;
    let sealed =
        seal::seal(&it.root, &it.key).with_context(|| format!("sealing {}", it.root.display()))?;
    Ok(Ended::Sealed { entries: sealed.entries.len() as u64, bytes: sealed.bytes() })
}

fn clone_into(it: &Copy) -> anyhow::Result<Ended> {
    let begun = std::time::Instant::now();
    let copied = seal::open(&it.from, &it.key).and_then(|sealed| {
        clone::copy_tree(&it.from, &it.to, &sealed).map(|reflinked| (sealed, reflinked))
    });
    match copied {
        Ok((sealed, reflinked)) => Ok(Ended::Cloned {
            entries: sealed.entries.len() as u64,
            bytes: sealed.bytes(),
            reflinked,
            seconds: begun.elapsed().as_secs_f64(),
        }),
        Err(SeedError::Unusable { reason }) => Ok(Ended::Unusable { reason }),
        Err(SeedError::Io { path, source }) => {
            Err(source).with_context(|| format!("copying {}", path.display()))
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result is what the caller asked for")]
fn print(ended: &Ended) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(ended).context("writing the result")?);
    Ok(())
}
