//! Bringing ranges up: register, create, start, wait, sync; each only as far as it is not done.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use engine::EngineError;
use engine::docker::{ContainerSpec, ContainerState, Powers};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use proto::identity::RangeName;
use transfer::EngineInfo;

use crate::call::{Call, Recipe, note};
use crate::container::{IMAGE, Names, PARTS, PROJECT, Parts, RANGE, labels};
use crate::error::RangeError;
use crate::event::{RangeObserver, RangeStage};
use crate::isolation;
use crate::journey::Journey;
use crate::labels::Labels;
use crate::places::{Places, patiently};
use crate::ranges::Ranges;
use crate::report::{Provision, RangeReport, Report};
use crate::seed::Wanted;
use crate::settings::UpRequest;
use crate::sync::union;
use crate::turn::Turn;

/// How long a range that already ran may take to answer, before its container is made again.
///
/// Long enough for an engine that is busy extracting on few cores; a range whose agent is stuck
/// costs this much once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl Ranges {
    /// Brings ranges up with their images, several at once. One that fails does not stop the
    /// others.
    ///
    /// A range that runs and answers, made from the same parts, is kept as it is; one that is
    /// stopped is started; one that is half made, does not answer or was made from older parts
    /// gets a new container over its old volumes, so its images stay.
    ///
    /// Cancel safe: what was made until the future was dropped is found by the next call. Images
    /// that are under way inside a range go on there.
    ///
    /// # Errors
    /// Only what concerns all ranges: the range image, the agent's binary, the host's
    /// capabilities, the engine. What goes wrong with one is in its report.
    pub async fn up(
        &self,
        request: &UpRequest,
        observer: Arc<dyn RangeObserver>,
    ) -> Result<Report, RangeError> {
        let recipe = self.recipe(request).await?;
        let mut seen = HashSet::new();
        // Owned, so that the future can be sent to another thread whatever the names live in.
        let names = request.names.iter().cloned();
        let names: Vec<_> = names.filter(|name| seen.insert(name.clone())).collect();
        if let Some(first) = names.first() {
            self.clear_seeds(&|text| note(&observer, first, text)).await;
        }
        let there = self.there().await?;
        let cold = names.iter().filter(|name| there.is_cold(&self.settings.project, name)).count();
        let machine = self.machine().await?;
        let wanted = if cold == 0 { Wanted::default() } else { self.resolve(request).await };
        let seeding = self.seeding(&recipe, &wanted, cold);
        if !self.settings.unchecked {
            self.check_room(&machine, &wanted, seeding.as_ref(), cold).await?;
        }
        let starts = self.settings.starts.unwrap_or_else(|| machine.starts());
        let places = Places::new(starts, self.settings.concurrency);
        let call =
            Call { observer: &observer, places: &places, seeding: seeding.as_ref(), there: &there };
        let ranges = names.into_iter().enumerate().map(|(position, range)| {
            let journey = Journey::begin(range, call.observer.clone());
            let recipe = &recipe;
            async move { (position, self.up_one(recipe, journey, &call).await) }
        });
        // All at once: each waits for its places, and not for those before it.
        let reports = ranges.collect::<FuturesUnordered<_>>().collect().await;
        if let Some(seeding) = seeding {
            self.end_seeding(seeding).await;
        }
        // What could not be used, and was still copied when that was found out; it was told then.
        self.clear_seeds(&|_| ()).await;
        self.keep_seeds_within(self.settings.seed_limit).await;
        Ok(in_order(reports))
    }

    async fn up_one(
        &self,
        recipe: &Recipe<'_>,
        mut journey: Journey,
        call: &Call<'_>,
    ) -> RangeReport {
        // Boxed: the way of a range is long, and there may be many.
        let result = Box::pin(self.bring_up(recipe, &mut journey, call)).await;
        if let Err(error) = &result {
            tracing::warn!(range = %journey.range, %error, "range is not up");
        }
        journey.end(result)
    }

    /// The way of one range; the module's first line in code.
    pub(crate) async fn bring_up(
        &self,
        recipe: &Recipe<'_>,
        journey: &mut Journey,
        call: &Call<'_>,
    ) -> Result<(), RangeError> {
        let range = journey.range.clone();
        journey.wanted = recipe.request.images.clone();
        let seed = self.seed_of(recipe, &range, None, call).await?;
        journey.place = call.places.start().await;

        journey.enter(RangeStage::Register);
        let Turn { present, held } = self.turn(recipe, journey, call).await?;
        let folders = self.host_agent.add(&range).await?;
        let before = self.host_agent.wanted(&range).await?;
        journey.wanted = match recipe.request.images.as_slice() {
            [] => before.clone(),
            images => union(&[], images),
        };

        journey.enter(RangeStage::Create);
        let given = match (&present, recipe.request.labels.is_empty()) {
            (Some(present), true) => Labels::given(&present.labels),
            _ => recipe.request.labels.clone(),
        };
        let is_new = present.is_none() && self.is_new(&range).await?;
        let cloned = match seed.filter(|_| is_new) {
            Some(seed) => self.begin_with(seed, recipe, journey, &given, call).await?,
            None => false,
        };
        // A new range that has everything to bring in is told so when it is its turn: its agent
        // begins at once.
        let told = present.is_some() || cloned;
        if told {
            self.want(&range, &before, &journey.wanted).await?;
        }
        let spec = Parts {
            settings: &self.settings,
            range: &range,
            folders: &folders,
            range_image: &recipe.request.range_image,
            image: &recipe.image,
            isolation: &recipe.isolation,
            agent: recipe.agent,
            labels: &given,
            more: &recipe.more,
        }
        .spec()?;
        let provision = judge(&spec, present.as_ref());
        if matches!(provision, Provision::Made | Provision::Remade) {
            self.make(recipe, &range, &spec, &given).await?;
        }
        drop(held);
        journey.provision = Some(if cloned { Provision::Cloned } else { provision });

        journey.enter(RangeStage::Start);
        self.engine.start_container(&spec.name).await?;

        journey.enter(RangeStage::Ready);
        let mut place = journey.place.take();
        let ready = self.ready_or_remade(recipe, journey, provision, &spec, &given);
        journey.engine = Some(Box::pin(patiently(&mut place, ready)).await?);
        drop(place);
        if journey.wanted.is_empty() {
            return Ok(());
        }
        journey.place = call.places.sync().await;
        if !told {
            self.want(&range, &before, &journey.wanted).await?;
        }
        self.sync_into(journey).await
    }

    /// Waits until a range answers that was started; one that was kept and does not is made again.
    async fn ready_or_remade(
        &self,
        recipe: &Recipe<'_>,
        journey: &mut Journey,
        provision: Provision,
        spec: &ContainerSpec,
        given: &Labels,
    ) -> Result<EngineInfo, RangeError> {
        let range = journey.range.clone();
        let limit = self.settings.ready_timeout;
        if provision != Provision::Kept {
            return self.ready(&range, limit).await;
        }
        match self.ready(&range, PATIENCE).await {
            Ok(engine) => Ok(engine),
            Err(error) => {
                tracing::info!(%range, %error, "range is made again");
                journey.provision = Some(Provision::Remade);
                self.make(recipe, &range, spec, given).await?;
                self.engine.start_container(&spec.name).await?;
                self.ready(&range, limit).await
            }
        }
    }

    /// Makes the container, in the place of one that may be there, over volumes that may be too.
    async fn make(
        &self,
        recipe: &Recipe<'_>,
        range: &RangeName,
        spec: &ContainerSpec,
        given: &Labels,
    ) -> Result<(), RangeError> {
        let project = &self.settings.project;
        self.is_no_half(range).await?;
        let names = Names::of(project, range);
        for volume in names.volumes() {
            self.own_volume(range, volume).await?;
        }
        self.remove_own_container(range, &spec.name).await?;
        for volume in names.volumes() {
            let mut all = labels(project, range, given);
            all.extend(recipe.more.clone());
            self.engine.create_volume(volume, &all).await?;
        }
        self.create(spec.clone()).await
    }

    /// Creates the container, without the capabilities that the engine has never heard of.
    pub(crate) async fn create(&self, mut spec: ContainerSpec) -> Result<(), RangeError> {
        loop {
            let Err(error) = self.engine.create_container(&spec).await else { return Ok(()) };
            let (EngineError::Refused { message, .. }, Powers::Capabilities(given)) =
                (&error, &mut spec.powers)
            else {
                return Err(error.into());
            };
            // Each round leaves one out, so this ends.
            match isolation::refused(given, message).map(str::to_owned) {
                Some(unknown) => given.retain(|name| *name != unknown),
                None => return Err(error.into()),
            }
        }
    }
}

/// An error unless `present`, which has the range's name, is the range, made from `range_image`.
pub(crate) fn agree(
    project: &str,
    range: &RangeName,
    range_image: &str,
    present: &ContainerState,
) -> Result<(), RangeError> {
    let label = |label: &str| present.labels.get(label).map_or("", String::as_str);
    if (label(RANGE), label(PROJECT)) != (range.as_str(), project) {
        return Err(RangeError::Taken { container: present.name.clone() });
    }
    if label(IMAGE) != range_image {
        return Err(RangeError::OtherImage {
            range: range.clone(),
            present: label(IMAGE).to_owned(),
            asked: range_image.to_owned(),
        });
    }
    Ok(())
}

/// What is to be done about the container of a range that should be as in `spec`.
fn judge(spec: &ContainerSpec, present: Option<&ContainerState>) -> Provision {
    let Some(present) = present else { return Provision::Made };
    let same = present.labels.get(PARTS) == spec.labels.get(PARTS);
    match (same, present.state.as_str()) {
        (true, "running" | "restarting") => Provision::Kept,
        // `created`: a command was killed between creating and starting it.
        (true, "created" | "exited") => Provision::Started,
        _ => Provision::Remade,
    }
}

/// Reports in the order asked, from the order in which they ended.
pub(crate) fn in_order(mut reports: Vec<(usize, RangeReport)>) -> Report {
    reports.sort_by_key(|(position, _)| *position);
    Report { ranges: reports.into_iter().map(|(_, report)| report).collect() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn container(labels: &[(&str, &str)], state: &str) -> ContainerState {
        ContainerState {
            id: "1".to_owned(),
            name: "longshore-a".to_owned(),
            state: state.to_owned(),
            exit_code: 0,
            pid: None,
            health: None,
            image: String::new(),
            labels: with(labels),
            addresses: BTreeMap::new(),
        }
    }

    fn with(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_container_is_kept_started_or_made_again_by_its_parts_and_state() {
        let spec = ContainerSpec { labels: with(&[(PARTS, "1")]), ..ContainerSpec::default() };
        let check = |parts: &str, state: &str, expected: Provision| {
            let present = container(&[(PARTS, parts)], state);
            assert_eq!(judge(&spec, Some(&present)), expected, "{parts} {state}");
        };
        check("1", "running", Provision::Kept);
        check("1", "restarting", Provision::Kept);
        check("1", "exited", Provision::Started);
        check("1", "created", Provision::Started);
        check("1", "dead", Provision::Remade);
        check("1", "paused", Provision::Remade);
        check("2", "running", Provision::Remade);
        check("2", "exited", Provision::Remade);
        assert_eq!(judge(&spec, None), Provision::Made);
    }

    #[test]
    fn what_is_not_this_range_is_never_touched() {
        let agreed = |labels: &[(&str, &str)]| {
            agree("longshore", &"a".parse().unwrap(), "dind:1", &container(labels, "running"))
        };
        let taken = |labels: &[(&str, &str)]| {
            assert!(matches!(agreed(labels), Err(RangeError::Taken { .. })), "{labels:?}");
        };
        taken(&[]);
        taken(&[(RANGE, "a")]);
        taken(&[(RANGE, "a"), (PROJECT, "other"), (IMAGE, "dind:1")]);
        taken(&[(RANGE, "b"), (PROJECT, "longshore"), (IMAGE, "dind:1")]);
        let other = agreed(&[(RANGE, "a"), (PROJECT, "longshore"), (IMAGE, "dind:2")]);
        let Err(RangeError::OtherImage { present, asked, .. }) = other else {
            panic!("another range image is the caller's to decide about: {other:?}");
        };
        assert_eq!((present.as_str(), asked.as_str()), ("dind:2", "dind:1"));
        agreed(&[(RANGE, "a"), (PROJECT, "longshore"), (IMAGE, "dind:1")]).unwrap();
    }
}
