//! The list of seeds, as the engine's labels tell: whole ones have a card, and half-made ones none.
//!
//! ```text
//!   <project>-seed-<key>-<n>-data, -agent   the seed       labels: key, range image, images
//!   <project>-seed-<key>-<n>.used-<time>    its card       labels: key, bytes, when it was used last
//! ```
//! A card is an empty volume, since labels cannot be changed: a newer one is made before the older is
//! removed. It is made after the seal, and removed before anything else of a seed is.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use control::RangeName;
use engine::docker::VolumeSummary;

use crate::container::{IMAGE, PROJECT, RANGE, SEED, labels};
use crate::error::RangeError;
use crate::labels::Labels;
use crate::project::Project;

/// The label with a seed's images, for people.
pub(super) const IMAGES: &str = "dev.longshore.seed-images";
/// The label of a card with the time of its seed's last use, in milliseconds since 1970.
const USED: &str = "dev.longshore.seed-used";
/// The label of a card with the bytes of its seed's files.
const BYTES: &str = "dev.longshore.seed-bytes";

/// Number of letters of a key in a seed's name: the label has all of it.
const SHORT_KEY: usize = 12;

/// A seed, as far as labels tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedStatus {
    /// Its name: that of the range that it was made as.
    pub name: RangeName,
    /// Its key, made of the range image and the images.
    pub key: String,
    /// The image that its range was made from, as it was asked for.
    pub range_image: String,
    /// Its images, separated by commas.
    pub images: String,
    /// Bytes of its files and when it was used last; absent while it is made, and for one whose
    /// making was cut off.
    pub card: Option<SeedCard>,
}

/// The record of a whole seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedCard {
    /// Bytes of its files.
    pub bytes: u64,
    /// Time of the last use, in milliseconds since 1970.
    pub used: u64,
}

/// The seeds of the project, that used last first; those without a card come last.
///
/// # Errors
/// [`RangeError::Engine`].
pub(crate) async fn list(project: &Project) -> Result<Vec<SeedStatus>, RangeError> {
    let volumes = project.owned.engine.volumes(SEED).await?;
    Ok(collect(project.owned.project(), &volumes))
}

/// Writes down that a seed is whole and used now.
pub(super) async fn write_card(
    project: &Project,
    name: &RangeName,
    key: &str,
    bytes: u64,
) -> Result<(), RangeError> {
    let used = now();
    let older = cards(project, name).await?;
    let owned = &project.owned;
    let mut all = labels(owned.project(), name, &Labels::default());
    for (label, value) in
        [(SEED, key.to_owned()), (BYTES, bytes.to_string()), (USED, used.to_string())]
    {
        all.insert(label.to_owned(), value);
    }
    let card = format!("{}.used-{used}", owned.names(name).container);
    owned.engine.create_volume(&card, &all).await?;
    for old in older.into_iter().filter(|old| *old != card) {
        owned.engine.remove_volume(&old).await?;
    }
    Ok(())
}

/// The names of a seed's cards.
pub(super) async fn cards(project: &Project, name: &RangeName) -> Result<Vec<String>, RangeError> {
    let volumes = project.owned.engine.volumes(&format!("{RANGE}={name}")).await?;
    let ours = volumes.into_iter().filter(|volume| {
        volume.labels.contains_key(USED) && project.owned.owns(name, &volume.labels)
    });
    Ok(ours.map(|volume| volume.name).collect())
}

/// The start of a key, as it is in names.
pub(super) fn short(key: &str) -> &str {
    &key[..SHORT_KEY.min(key.len())]
}

/// The seeds of `project` among these volumes.
fn collect(project: &str, volumes: &[VolumeSummary]) -> Vec<SeedStatus> {
    let mut seeds: BTreeMap<RangeName, SeedStatus> = BTreeMap::new();
    for VolumeSummary { labels, .. } in volumes {
        let word = |label: &str| labels.get(label).cloned().unwrap_or_default();
        let Ok(name) = word(RANGE).parse::<RangeName>() else { continue };
        if word(PROJECT) != project {
            continue;
        }
        let seed = seeds.entry(name.clone()).or_insert_with(|| SeedStatus {
            name,
            key: word(SEED),
            range_image: String::new(),
            images: String::new(),
            card: None,
        });
        match (word(USED).parse(), word(BYTES).parse()) {
            (Ok(used), Ok(bytes)) => {
                let newer = seed.card.is_none_or(|card| card.used < used);
                seed.card = if newer { Some(SeedCard { bytes, used }) } else { seed.card };
            }
            _ => {
                seed.range_image = word(IMAGE);
                seed.images = word(IMAGES);
            }
        }
    }
    let mut seeds: Vec<_> = seeds.into_values().collect();
    seeds.sort_by_key(|seed| std::cmp::Reverse(seed.card.map(|card| card.used)));
    seeds
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seeds to remove so that the rest fits into `limit`, the least recently used first.
pub(super) fn beyond(seeds: &[SeedStatus], limit: u64) -> Vec<SeedStatus> {
    let mut kept = 0_u64;
    let whole = seeds.iter().filter_map(|seed| seed.card.map(|card| (seed, card)));
    let beyond = whole.filter(|(_, card)| {
        let fits = kept.saturating_add(card.bytes) <= limit;
        kept = kept.saturating_add(if fits { card.bytes } else { 0 });
        !fits
    });
    beyond.map(|(seed, _)| seed.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, labels: &[(&str, &str)]) -> VolumeSummary {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        VolumeSummary { name: name.to_owned(), mountpoint: String::new(), labels: labels.collect() }
    }

    #[test]
    fn a_seed_is_whole_once_it_has_a_card_and_the_newest_counts() {
        let base = |name: &'static str| vec![(PROJECT, "p"), (RANGE, name), (SEED, "k")];
        let card = |name: &'static str, used: &'static str| {
            let mut labels = base(name);
            labels.extend([(USED, used), (BYTES, "5")]);
            volume(&format!("{name}.used"), &labels)
        };
        let mut data = base("seed-b");
        data.extend([(IMAGE, "dind:1"), (IMAGES, "a:1,b:2")]);
        let volumes = [
            volume("a", &base("seed-a")),
            volume("b", &data),
            card("seed-b", "7"),
            card("seed-b", "9"),
            card("seed-b", "8"),
            volume("other", &[(PROJECT, "q"), (RANGE, "seed-q"), (SEED, "k")]),
        ];
        let seeds = collect("p", &volumes);
        let found: Vec<_> =
            seeds.iter().map(|s| (s.name.as_str(), s.card.map(|c| c.used))).collect();
        assert_eq!(found, [("seed-b", Some(9)), ("seed-a", None)]);
        assert_eq!(
            (seeds[0].range_image.as_str(), seeds[0].images.as_str()),
            ("dind:1", "a:1,b:2")
        );
    }

    #[test]
    fn the_seed_used_longest_ago_goes_first() {
        let seed = |name: &str, bytes: u64, used: u64| SeedStatus {
            name: name.parse().unwrap(),
            key: "k".to_owned(),
            range_image: String::new(),
            images: String::new(),
            card: Some(SeedCard { bytes, used }),
        };
        // In the order in which they are listed.
        let seeds = [seed("new", 5, 9), seed("mid", 5, 5), seed("old", 5, 1)];
        let check = |limit: u64, expected: &[&str]| {
            let gone = beyond(&seeds, limit);
            let gone: Vec<_> = gone.iter().map(|seed| seed.name.as_str()).collect();
            assert_eq!(gone, expected, "{limit}");
        };
        check(15, &[]);
        check(14, &["old"]);
        check(9, &["mid", "old"]);
        check(0, &["new", "mid", "old"]);
        let half = SeedStatus { card: None, ..seed("half", 0, 0) };
        assert_eq!(beyond(&[half], 0), [], "what is being made is not judged by its size");
    }
}
