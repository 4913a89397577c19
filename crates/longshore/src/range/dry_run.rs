//! `--dry-run`: which images are wanted, why, and what would move; nothing is changed.
//!
//! Ranges that are there are asked for their plan, as a sync would make it: the host agent may read
//! an image from its engine into its own store to know its layers, as it would for any range. A range
//! that is not there yet would take an image whole. No container, no wanted set and no label is
//! touched, and neither engine nor host agent is started.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use process::exit::Exit;
use process::output::{Format, Table, count, print, print_json_lines, size, yes_no};
use range::{RangeName, RangePlan, RangeState, Ranges, Reference, Selection};
use serde::Serialize;

use super::connect::connect;
use super::wanted::{Wanted, references};
use crate::interrupt::until_interrupted;
use crate::site::Site;

/// One line of JSON: an image that a range should have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Line {
    /// Which range; null when no range is there that could want it.
    range: Option<String>,
    image: String,
    /// Whether the range is there.
    range_exists: bool,
    /// Whether it has the image, proven, under this name.
    already_there: bool,
    /// Layer bytes that would move at most, since images of one range share layers; null when
    /// nobody knows yet.
    bytes_to_move: Option<u64>,
    /// Layer bytes that would not have to; null when nobody knows yet.
    bytes_saved: Option<u64>,
    /// Why it is wanted; empty when the range was told so before.
    reasons: Vec<String>,
    /// Why there is no plan, and what to do; null when there is one.
    error: Option<String>,
}

/// Present state of the selected ranges.
#[derive(Debug, Default)]
struct Known {
    plans: Vec<RangePlan>,
    /// Those that are not there.
    absent: Vec<RangeName>,
}

/// Shows what `range up` would do.
///
/// # Errors
/// When the ranges cannot be asked; that there are none, and no engine, is no error.
pub(super) fn up(
    names: &[RangeName],
    wanted: &[Wanted],
    format: Format,
    site: &Site,
) -> Result<Exit> {
    let known = until_interrupted(async {
        let ranges = match connect(site, None).await {
            Ok(ranges) => ranges,
            Err(error) => {
                eprintln!("{error:#}");
                return Ok(Known { plans: Vec::new(), absent: names.to_vec() });
            }
        };
        let there = ranges.list().await.map_err(|error| site.explain(&error))?;
        let there: BTreeSet<RangeName> = there
            .into_iter()
            .filter(|status| status.state != RangeState::Unmade)
            .map(|status| status.range)
            .collect();
        let (there, absent) = names.iter().cloned().partition(|name| there.contains(name));
        let plans = plan(&ranges, Selection::Names(there), wanted, site).await?;
        Ok(Known { plans, absent })
    })?;
    show(known, wanted, format)
}

/// Shows what `range sync` would do.
///
/// # Errors
/// When no engine runs, or the ranges cannot be asked.
pub(super) fn sync(
    selection: Selection,
    wanted: &[Wanted],
    format: Format,
    site: &Site,
) -> Result<Exit> {
    let known = until_interrupted(async {
        let ranges = connect(site, None).await?;
        let plans = plan(&ranges, selection, wanted, site).await?;
        Ok(Known { plans, absent: Vec::new() })
    })?;
    show(known, wanted, format)
}

async fn plan(
    ranges: &Ranges,
    selection: Selection,
    wanted: &[Wanted],
    site: &Site,
) -> Result<Vec<RangePlan>> {
    if matches!(&selection, Selection::Names(names) if names.is_empty()) {
        return Ok(Vec::new());
    }
    ranges.plan(&selection, &references(wanted)).await.map_err(|error| site.explain(&error))
}

fn show(known: Option<Known>, wanted: &[Wanted], format: Format) -> Result<Exit> {
    let Some(known) = known else { return Ok(Exit::Interrupted) };
    let lines = lines(&known, wanted);
    match format {
        Format::Json => {
            print_json_lines(&lines)?;
            for plan in &known.plans {
                if let Some(error) = &plan.error {
                    eprintln!("{}: {error}", plan.range);
                }
            }
        }
        Format::Table => print(&text(&known, &lines, wanted))?,
    }
    let is_whole = known.plans.iter().all(|plan| plan.error.is_none())
        && lines.iter().all(|line| line.error.is_none());
    Ok(Exit::whole(is_whole))
}

fn lines(known: &Known, wanted: &[Wanted]) -> Vec<Line> {
    let reasons = |reference: &Reference| {
        let wanted = wanted.iter().find(|wanted| wanted.reference == *reference);
        wanted.map(|wanted| wanted.reasons.clone()).unwrap_or_default()
    };
    let mut sizes: BTreeMap<&Reference, u64> = BTreeMap::new();
    let mut lines = Vec::new();
    for plan in &known.plans {
        for image in &plan.images {
            let is_known = image.error.is_none();
            if is_known {
                sizes.insert(&image.reference, image.bytes_to_move + image.bytes_saved);
            }
            lines.push(Line {
                range: Some(plan.range.to_string()),
                image: image.reference.to_string(),
                range_exists: true,
                already_there: image.already_there,
                bytes_to_move: is_known.then_some(image.bytes_to_move),
                bytes_saved: is_known.then_some(image.bytes_saved),
                reasons: reasons(&image.reference),
                error: image.error.clone(),
            });
        }
    }
    let whole = |range: Option<&RangeName>, wanted: &Wanted| Line {
        range: range.map(ToString::to_string),
        image: wanted.reference.to_string(),
        range_exists: false,
        already_there: false,
        bytes_to_move: sizes.get(&wanted.reference).copied(),
        bytes_saved: sizes.get(&wanted.reference).map(|_| 0),
        reasons: wanted.reasons.clone(),
        error: None,
    };
    for range in &known.absent {
        lines.extend(wanted.iter().map(|wanted| whole(Some(range), wanted)));
    }
    if known.plans.is_empty() && known.absent.is_empty() {
        lines.extend(wanted.iter().map(|wanted| whole(None, wanted)));
    }
    lines
}

/// All of it for people.
fn text(known: &Known, lines: &[Line], wanted: &[Wanted]) -> String {
    let mut text = String::new();
    if !wanted.is_empty() {
        let mut table = Table::new(["WANTED", "BY"]);
        for image in wanted {
            table.row([image.reference.to_string(), image.reasons.join(", ")]);
        }
        text += &format!("{table}\n");
    }
    text += &moves(lines).to_string();
    for plan in &known.plans {
        if let Some(error) = &plan.error {
            text += &format!("{}: {error}\n", plan.range);
        }
    }
    for line in lines {
        if let (Some(range), Some(error)) = (&line.range, &line.error) {
            text += &format!("{range} {}: {error}\n", line.image);
        }
    }
    for range in &known.absent {
        text += &format!("{range}: not there yet: it would be made\n");
    }
    let moved: u64 = lines.iter().filter_map(|line| line.bytes_to_move).sum();
    let unknown = lines.iter().filter(|line| line.bytes_to_move.is_none()).count();
    let more = match unknown {
        0 => String::new(),
        unknown => format!(", and {} of unknown size", count(unknown, "image")),
    };
    text + &format!("at most {} would move{more}; nothing was changed\n", size(moved))
}

fn moves(lines: &[Line]) -> Table<5> {
    let mut table = Table::new(["RANGE", "IMAGE", "THERE", "WOULD MOVE>", "WOULD NOT>"]);
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), size);
    for line in lines {
        table.row([
            line.range.clone().unwrap_or_else(|| "-".to_owned()),
            line.image.clone(),
            yes_no(line.already_there).to_owned(),
            bytes(line.bytes_to_move),
            bytes(line.bytes_saved),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use range::ImagePlan;

    use super::*;

    fn wanted(names: &[&str]) -> Vec<Wanted> {
        let wanted = |name: &&str| Wanted {
            reference: name.parse().unwrap(),
            reasons: vec![format!("compose.yaml:2 {name}")],
        };
        names.iter().map(wanted).collect()
    }

    fn image(name: &str, bytes: (u64, u64), error: Option<&str>) -> ImagePlan {
        ImagePlan {
            reference: name.parse().unwrap(),
            config_digest: None,
            bytes_to_move: bytes.0,
            bytes_saved: bytes.1,
            already_there: bytes.0 == 0 && error.is_none(),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn a_range_that_is_not_there_takes_whole_what_another_tells_the_size_of() {
        let images = vec![image("a:1", (0, 30), None), image("b:1", (0, 0), Some("not there"))];
        let plans = vec![RangePlan { range: "one".parse().unwrap(), images, error: None }];
        let known = Known { plans, absent: vec!["two".parse().unwrap()] };
        let lines = lines(&known, &wanted(&["a:1", "b:1"]));
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                let range = line.range.as_deref().unwrap();
                (range, line.image.as_str(), line.bytes_to_move, line.already_there)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("one", "a:1", Some(0), true),
                ("one", "b:1", None, false),
                ("two", "a:1", Some(30), false),
                ("two", "b:1", None, false),
            ]
        );
        assert_eq!(lines[2].reasons, ["compose.yaml:2 a:1"]);
        let table = moves(&lines).to_string();
        let row: Vec<&str> = table.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(row, ["two", "a:1", "no", "30", "B", "0", "B"]);
    }

    #[test]
    fn without_ranges_the_wanted_images_are_told_all_the_same() {
        let lines = lines(&Known::default(), &wanted(&["a:1"]));
        assert_eq!(
            serde_json::to_string(&lines[0]).unwrap(),
            r#"{"range":null,"image":"a:1","range_exists":false,"already_there":false,"bytes_to_move":null,"bytes_saved":null,"reasons":["compose.yaml:2 a:1"],"error":null}"#
        );
    }
}
