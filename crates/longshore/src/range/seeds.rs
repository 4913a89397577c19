//! `longshore range seeds`: what new ranges begin with.

use anyhow::Result;
use clap::Args;
use process::exit::Exit;
use process::output::{Format, Table, print, print_json_lines, size};
use serde::Serialize;

use super::connect::connect;
use crate::interrupt::until_interrupted;
use crate::site::Site;

/// Arguments of `range seeds`.
#[derive(Debug, Args)]
#[command(
    after_help = "A seed is the sealed data of a range whose engine was stopped. It is made by `range up` \
                  for two or more new ranges, used again by later calls for the same images and range \
                  image, and removed with all ranges."
)]
pub struct Seeds {
    /// Remove seeds until the others take at most this; those used longest ago go first, and one that
    /// is being made or copied stays. 0 removes all.
    #[arg(long, value_name = "GIB", num_args = 0..=1, default_missing_value = "0")]
    prune: Option<u64>,
    /// Form of the results on stdout.
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
pub(super) fn run(seeds: &Seeds, site: &Site) -> Result<Exit> {
    let done = until_interrupted(async {
        let ranges = connect(site, None).await?;
        let removals = match seeds.prune {
            Some(gibibytes) => ranges.prune_seeds(gibibytes.saturating_mul(1 << 30)).await,
            None => Ok(Vec::new()),
        };
        let removals = removals.map_err(|error| site.explain(&error))?;
        Ok((removals, ranges.seeds().await.map_err(|error| site.explain(&error))?))
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
        Format::Json => print_json_lines(lines)?,
        Format::Table => print(&show(lines, site.program))?,
    }
    Ok(Exit::whole(removals.iter().all(|removal| removal.error.is_none())))
}

fn show(lines: impl Iterator<Item = Line>, program: &str) -> String {
    let mut table = Table::new(["SEED", "RANGE IMAGE", "SIZE>", "IMAGES"]);
    for line in lines {
        let bytes = line.bytes.map_or("not whole".to_owned(), size);
        table.row([line.name, line.range_image, bytes, line.images.join(", ")]);
    }
    if table.is_empty() {
        return format!(
            "there are no seeds; `{program} range up` makes one for two or more new ranges\n"
        );
    }
    table.to_string()
}

impl Seeds {
    /// Whether seeds are to be removed.
    #[must_use]
    pub fn removes(&self) -> bool {
        self.prune.is_some()
    }
}
