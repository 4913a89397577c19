//! An image read through its engine, whole: every layer, and every file as a container would see it.
//!
//! ```text
//!   save ──► each layer hashes to its diff ID ──► what should be at each path ─┐
//!                                                                              ├─ compare
//!   a container, never started ──► export ──► what is at each path ────────────┘
//! ```
//!
//! Between the two lies what an engine does with layers on its own: the graphdriver keeps files and
//! puts layers together from them, the containerd store keeps blobs and unpacks them. A file that was
//! removed or changed in either place is found. In memory there is one record for each path, never
//! content.

mod feed;
mod layers;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt as _;
use layer::compare::compare;
use layer::tree::Tree;
use transfer::EngineImageId;

use self::feed::feed;
use crate::docker::api::ContainerSpec;
use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::engine::Verification;

/// How long the engine may be silent in a save or an export: it may write all layers to its temporary
/// folder before the first byte.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Most problems that are told of one image: who has more needs no list.
const MAX_PROBLEMS: usize = 100;

/// Longest text of a problem, in characters.
const MAX_TEXT: usize = 1000;

/// The label of containers that exist to be looked into.
const LABEL: &str = "dev.longshore.verify";

/// Paths that an engine fills in every container's root, whatever the image has there.
const ENGINES_OWN: [&[u8]; 11] = [
    b".dockerenv",
    b"dev",
    b"dev/console",
    b"dev/pts",
    b"dev/shm",
    b"etc/hosts",
    b"etc/hostname",
    b"etc/mtab",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
];

impl Verification {
    fn problem(&mut self, problem: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem.chars().take(MAX_TEXT).collect());
        } else {
            self.more_problems += 1;
        }
    }
}

impl Docker {
    /// Reads every layer and every file of `image` through the engine, and says what is wrong.
    ///
    /// For the second half a container is created, never started, and removed. Dropping the future
    /// ends the work and may leave that container, which [`Docker::sweep_verifications`] removes.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] without the image, and that the engine does not answer. What it
    /// answers wrongly is a problem and no error.
    pub async fn verify(&self, image: EngineImageId) -> Result<Verification, EngineError> {
        const ACTION: &str = "looking for the image to verify";
        let inspected = self.inspect(&image.to_string()).await?.ok_or_else(|| {
            EngineError::status(self.address(), ACTION, 404, format!("no image {image}"))
        })?;
        let mut found = Verification::default();
        let diff_ids = inspected.diff_ids().to_vec();
        let path = format!("/images/{image}/get");
        let Some((tree, problems)) = self
            .read("saving an image", &path, &mut found, move |save| layers::root(save, &diff_ids))
            .await?
        else {
            return Ok(found);
        };
        problems.into_iter().for_each(|problem| found.problem(problem));
        if let Some(tree) = tree {
            self.look_into(image, tree, &mut found).await?;
        }
        Ok(found)
    }

    /// Removes containers that verifications left when they were killed.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn sweep_verifications(&self) -> Result<(), EngineError> {
        for left in self.containers(LABEL).await? {
            self.remove_container(&left.id).await?;
        }
        Ok(())
    }

    /// Compares the root of a container with what it should be.
    async fn look_into(
        &self,
        image: EngineImageId,
        tree: Tree,
        found: &mut Verification,
    ) -> Result<(), EngineError> {
        let container = match self.create_container(&spec(image)).await {
            Ok(container) => container,
            Err(error) => return self.blame(error, found).await,
        };
        let path = format!("/containers/{container}/export");
        let compared = self
            .read("exporting a container", &path, found, move |export| {
                let mut told = Verification::default();
                told.files =
                    compare(export, &tree, &ENGINES_OWN, &mut |problem| told.problem(problem));
                told
            })
            .await;
        let removed = self.remove_container(&container).await;
        if let Some(told) = compared? {
            found.files += told.files;
            told.problems.into_iter().for_each(|problem| found.problem(problem));
            found.more_problems += told.more_problems;
        }
        removed
    }

    /// Has `work` read what `GET path` answers; `None` where the engine refused, which is a problem.
    async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        path: &str,
        found: &mut Verification,
        work: impl FnOnce(feed::Fed) -> T + Send + 'static,
    ) -> Result<Option<T>, EngineError> {
        let answer = match self.http.get(action, path, PATIENCE).await {
            Ok(answer) => answer,
            Err(error) => return self.blame(error, found).await.map(|()| None),
        };
        let (done, read, broken) = feed(answer.into_stream(), work).await;
        found.bytes_read += read;
        if broken {
            // The image's fault or the engine's? One that died is no witness.
            self.ping().await?;
        }
        Ok(Some(done))
    }

    /// Takes an engine's refusal for a problem of the image; an engine that does not answer is an
    /// error.
    async fn blame(&self, error: EngineError, found: &mut Verification) -> Result<(), EngineError> {
        match error {
            EngineError::Refused { .. } | EngineError::NotFound { .. } => {
                found.problem(transfer::explain(&error));
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// A container that is never started.
fn spec(image: EngineImageId) -> ContainerSpec {
    ContainerSpec {
        image: image.to_string(),
        labels: BTreeMap::from([(LABEL.to_owned(), "1".to_owned())]),
        // An image need not name a program, and an engine wants one.
        entrypoint: Some(vec!["/never-started".to_owned()]),
        cmd: Some(Vec::new()),
        network: Some("none".to_owned()),
        ..ContainerSpec::default()
    }
}
