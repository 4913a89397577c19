//! The containers and volumes of one project: found by their labels, and nobody else's touched.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use control::RangeName;
use engine::EngineError;
use engine::docker::{ContainerSpec, ContainerState, Docker, Powers, VolumeSummary};

use crate::container::{IMAGE, Names, PROJECT, RANGE, SEED};
use crate::error::RangeError;
use crate::isolation;
use crate::labels::Labels;

/// Time to repeat a request that the engine refuses: a container may be on its way out.
const PERSISTENCE: Duration = Duration::from_secs(5);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);

/// Containers and volumes of one project in the engine that runs its ranges.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) engine: Docker,
    project: String,
}

impl Owned {
    pub(crate) fn new(engine: Docker, project: &str) -> Self {
        Self { engine, project: project.to_owned() }
    }

    /// The project's name.
    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    /// The names of what belongs to `range`.
    pub(crate) fn names(&self, range: &RangeName) -> Names {
        Names::of(&self.project, range)
    }

    /// The ranges that were given all of `labels`, half-made ones included, sorted by name. Seeds and
    /// the ranges that they are made from are left out.
    ///
    /// # Errors
    /// [`RangeError::Engine`].
    pub(crate) async fn ranges(&self, labels: &Labels) -> Result<Vec<RangeName>, RangeError> {
        let listed = self.listed().await?;
        let meant = listed
            .iter()
            .map(|(_, found)| found)
            .filter(|found| !found.contains_key(SEED) && Labels::given(found).include(labels));
        let names: BTreeSet<RangeName> =
            meant.filter_map(|found| found.get(RANGE)?.parse().ok()).collect();
        Ok(names.into_iter().collect())
    }

    /// Lists the project's containers and volumes.
    ///
    /// # Errors
    /// [`RangeError::Engine`].
    pub(crate) async fn present(&self) -> Result<Present, RangeError> {
        let names = self.listed().await?.into_iter().map(|(name, _)| name).collect();
        Ok(Present { project: self.project.clone(), names })
    }

    /// Names and labels of all containers and volumes of the project.
    async fn listed(&self) -> Result<Vec<(String, BTreeMap<String, String>)>, RangeError> {
        let label = format!("{PROJECT}={}", self.project);
        let containers = self.engine.containers(&label).await?;
        let volumes = self.engine.volumes(&label).await?;
        let containers = containers.into_iter().map(|found| (found.name, found.labels));
        let volumes = volumes.into_iter().map(|found| (found.name, found.labels));
        Ok(containers.chain(volumes).collect())
    }

    /// True if labels mark a part of `range` of this project.
    pub(crate) fn owns(&self, range: &RangeName, labels: &BTreeMap<String, String>) -> bool {
        is_of(&self.project, range, labels)
    }

    /// The container of `range`; `None` when there is none.
    ///
    /// # Errors
    /// [`RangeError::Taken`] when somebody else's container has its name.
    pub(crate) async fn range(
        &self,
        range: &RangeName,
    ) -> Result<Option<ContainerState>, RangeError> {
        self.container(range, &self.names(range).container).await
    }

    /// The same for a range that should be made from `range_image`.
    ///
    /// # Errors
    /// [`RangeError::Taken`]; [`RangeError::OtherImage`] when it is made from another one.
    pub(crate) async fn range_from(
        &self,
        range_image: &str,
        range: &RangeName,
    ) -> Result<Option<ContainerState>, RangeError> {
        let present = self.range(range).await?;
        if let Some(present) = &present {
            is_made_from(range_image, range, present)?;
        }
        Ok(present)
    }

    /// The container of this name, which should be `range`'s; `None` when there is none.
    ///
    /// # Errors
    /// [`RangeError::Taken`] when it belongs to another project or program.
    async fn container(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<Option<ContainerState>, RangeError> {
        match self.engine.container(name).await? {
            Some(container) if !self.owns(range, &container.labels) => {
                Err(RangeError::Taken { container: container.name })
            }
            container => Ok(container),
        }
    }

    /// The volume of this name, which should be `range`'s; `None` when there is none.
    ///
    /// # Errors
    /// [`RangeError::TakenVolume`] when it belongs to another project or program.
    pub(crate) async fn volume(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<Option<VolumeSummary>, RangeError> {
        match self.engine.volume(name).await? {
            Some(volume) if !self.owns(range, &volume.labels) => {
                Err(RangeError::TakenVolume { volume: volume.name })
            }
            volume => Ok(volume),
        }
    }

    /// Creates a container, without the capabilities that the engine does not know.
    ///
    /// # Errors
    /// [`RangeError::Engine`].
    pub(crate) async fn create_container(&self, mut spec: ContainerSpec) -> Result<(), RangeError> {
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

    /// Removes a container of `range` by its name, and says whether there was one.
    ///
    /// # Errors
    /// [`RangeError::Taken`] when it belongs to another project or program.
    pub(crate) async fn remove_container(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<bool, RangeError> {
        let Some(container) = self.container(range, name).await? else { return Ok(false) };
        self.engine.remove_container(&container.id).await?;
        Ok(true)
    }

    /// Removes a volume of `range` by its name, and says whether there was one.
    ///
    /// # Errors
    /// As [`volume`](Self::volume).
    pub(crate) async fn remove_volume(
        &self,
        range: &RangeName,
        name: &str,
    ) -> Result<bool, RangeError> {
        let Some(volume) = self.volume(range, name).await? else { return Ok(false) };
        self.engine.remove_volume(&volume.name).await?;
        Ok(true)
    }
}

/// Names of the containers and volumes that a project had at one moment.
#[derive(Debug)]
pub(crate) struct Present {
    project: String,
    names: HashSet<String>,
}

impl Present {
    /// True if `range` is created from nothing.
    pub(crate) fn is_cold(&self, range: &RangeName) -> bool {
        let names = Names::of(&self.project, range);
        let has = |name: &str| self.names.contains(name);
        // Volumes that an interrupted copy left behind do not count.
        !has(&names.container) && (!has(&names.data_volume) || has(&names.half()))
    }
}

/// True if labels mark a part of `range` of `project`.
fn is_of(project: &str, range: &RangeName, labels: &BTreeMap<String, String>) -> bool {
    let is = |label: &str, value: &str| labels.get(label).is_some_and(|found| found == value);
    is(PROJECT, project) && is(RANGE, range.as_str())
}

/// An error unless the container of a range was made from `range_image`.
fn is_made_from(
    range_image: &str,
    range: &RangeName,
    present: &ContainerState,
) -> Result<(), RangeError> {
    let image = present.labels.get(IMAGE).map_or("", String::as_str);
    if image == range_image {
        return Ok(());
    }
    Err(RangeError::OtherImage {
        range: range.clone(),
        present: image.to_owned(),
        asked: range_image.to_owned(),
    })
}

/// Repeats `attempt` for a while as long as the engine refuses it; it must be safe to repeat.
pub(crate) async fn persistently<T, F, R>(mut attempt: F) -> Result<T, RangeError>
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, RangeError>>,
{
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(RangeError::Engine(_)) if begun.elapsed() < PERSISTENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn name(text: &str) -> RangeName {
        text.parse().unwrap()
    }

    #[test]
    fn both_labels_say_whose_something_is() {
        let check = |found: &[(&str, &str)], expected: bool| {
            assert_eq!(is_of("longshore", &name("a"), &labels(found)), expected, "{found:?}");
        };
        check(&[], false);
        check(&[(RANGE, "a")], false);
        check(&[(RANGE, "a"), (PROJECT, "other")], false);
        check(&[(RANGE, "b"), (PROJECT, "longshore")], false);
        check(&[(RANGE, "a"), (PROJECT, "longshore"), (IMAGE, "dind:1")], true);
    }

    #[test]
    fn a_range_made_from_another_image_is_refused() {
        let present = ContainerState {
            id: "1".to_owned(),
            name: "longshore-a".to_owned(),
            state: "running".to_owned(),
            exit_code: 0,
            pid: None,
            health: None,
            image: String::new(),
            labels: labels(&[(IMAGE, "dind:2")]),
            addresses: BTreeMap::new(),
        };
        is_made_from("dind:2", &name("a"), &present).unwrap();
        let other = is_made_from("dind:1", &name("a"), &present);
        let Err(RangeError::OtherImage { present, asked, .. }) = other else {
            panic!("it is the caller's to decide: {other:?}");
        };
        assert_eq!((present.as_str(), asked.as_str()), ("dind:2", "dind:1"));
    }

    #[test]
    fn a_range_is_cold_while_nothing_whole_of_it_is_there() {
        let check = |names: &[&str], expected: bool| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let present = Present { project: "p".to_owned(), names };
            assert_eq!(present.is_cold(&name("a")), expected, "{present:?}");
        };
        check(&[], true);
        check(&["p-b", "p-b-data"], true);
        check(&["p-a"], false);
        check(&["p-a-data"], false);
        check(&["p-a-data", "p-a.half"], true);
        check(&["p-a", "p-a-data", "p-a.half"], false);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_the_engine_is_repeated_and_no_other_failure_is() {
        let refused = || {
            let (engine, message) = ("unix:///d".to_owned(), "volume is in use".to_owned());
            let action = "removing a volume";
            RangeError::Engine(EngineError::Refused { engine, action, status: 409, message })
        };
        let mut attempts = 0;
        let done = persistently(|| {
            attempts += 1;
            std::future::ready(if attempts < 3 { Err(refused()) } else { Ok(()) })
        });
        done.await.unwrap();
        assert_eq!(attempts, 3);
        let mut attempts = 0;
        let failed = persistently(|| {
            attempts += 1;
            std::future::ready(Err::<(), _>(RangeError::seed("copying", "no space")))
        });
        assert!(failed.await.is_err());
        assert_eq!(attempts, 1);
    }
}
