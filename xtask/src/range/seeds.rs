//! `cargo xtask range seeds`: what new ranges begin with.

use anyhow::Result;
use clap::Args;
use range::Ranges;
use serde::Serialize;

use super::arguments::Format;
use super::output::{json_lines, right, table};
use super::place::{Place, settings};
use super::{told, until_interrupted};
use crate::exit::Exit;
use crate::text::size;

/// What is to be done with seeds.
#[derive(Debug, Args)]
#[command(
    after_help = "A seed is the sealed data of a range whose engine was stopped. It is made by `range up` \
                  for two or more new ranges, used again by later calls for the same images and range \
                  image, and removed with all ranges."
)]
pub(crate) struct Seeds {
    /// Remove seeds until the others take at most this; those used longest ago go first, and one that
    /// is being made or copied stays. 0 removes all.
    #[arg(long, value_name = "GIB", num_args = 0..=1, default_missing_value = "0")]
    prune: Option<u64>,
    /// How results are printed on stdout.
    #[arg(long, value_name = "FORM", default_value = "table")]
    format: Format,
}

/// One line of JSON: a seed.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    range_image: String,
    images: Vec<String>,
    /// Bytes of its files; null while it is made, and where that was cut off.
    bytes: Option<u64>,
    /// When it was used last, in seconds since 1970; null likewise.
    used: Option<u64>,
}

/// Lists or removes.
///
/// # Errors
/// When no engine runs, or it cannot be asked.
pub(super) fn run(seeds: &Seeds) -> Result<Exit> {
    let place = if seeds.prune.is_some() { Place::for_down()? } else { Place::as_it_is()? };
    let done = until_interrupted(async {
        let ranges = Ranges::connect(settings(&place, None)).await.map_err(|error| told(&error))?;
        let removals = match seeds.prune {
            Some(gibibytes) => ranges.prune_seeds(gibibytes.saturating_mul(1 << 30)).await,
            None => Ok(Vec::new()),
        };
        let removals = removals.map_err(|error| told(&error))?;
        Ok((removals, ranges.seeds().await.map_err(|error| told(&error))?))
    })?;
    let Some((removals, left)) = done else { return Ok(Exit::Interrupted) };
    for removal in &removals {
        match &removal.error {
            Some(error) => eprintln!("{}: not removed whole: {error}", removal.range),
            None => eprintln!("{}: removed", removal.range),
        }
    }
    let lines = left.into_iter().map(|seed| Line {
        name: seed.name.to_string(),
        range_image: seed.range_image,
        images: seed.images.split(',').map(str::to_owned).collect(),
        bytes: seed.card.map(|card| card.bytes),
        used: seed.card.map(|card| card.used / 1000),
    });
    match seeds.format {
        Format::Json => json_lines(lines)?,
        Format::Table => show(lines),
    }
    Ok(Exit::whole(removals.iter().all(|removal| removal.error.is_none())))
}

fn show(lines: impl Iterator<Item = Line>) {
    let mut all = table(&["SEED", "RANGE IMAGE", "SIZE", "IMAGES"]);
    right(&mut all, 2..3);
    let mut count = 0;
    for line in lines {
        let bytes = line.bytes.map_or("not whole".to_owned(), size);
        all.add_row([line.name, line.range_image, bytes, line.images.join(", ")]);
        count += 1;
    }
    match count {
        0 => println!(
            "there are no seeds; `cargo xtask range up` makes one for two or more new ranges"
        ),
        _ => println!("{all}"),
    }
}
