//! The image with both agents, for compose files and pods.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::docker::Docker;
use super::own_image::ensure_image;
use super::rootfs;
use super::state::State;
use super::step::fingerprint;

/// The image's name, with the agents' version as its tag.
const REFERENCE: &str = concat!("longshore/agents:", env!("CARGO_PKG_VERSION"));

/// The Dockerfile. Both binaries are linked statically, so the image needs no base.
const DOCKERFILE: &str = "FROM scratch\nCOPY longshore-host-agent longshore-dind-agent /usr/local/bin/\n\
                          ENV PATH=/usr/local/bin\n";

/// Builds the image of these binaries, unless it exists, and returns its name.
///
/// # Errors
/// No engine is available, or the build fails.
pub(crate) fn image(binaries: &[&Path]) -> Result<String> {
    ensure_image(REFERENCE, |docker, state| make(docker, state, binaries))
}

/// Builds the image if needed; returns whether it did.
fn make(docker: &Docker, state: &State, binaries: &[&Path]) -> Result<bool> {
    let mut recipe = DOCKERFILE.to_owned();
    for binary in binaries {
        let meta = fs::metadata(binary).with_context(|| format!("reading {}", binary.display()))?;
        let changed = meta
            .modified()
            .with_context(|| format!("reading the modification time of {}", binary.display()))?;
        recipe.push_str(&format!("{} {changed:?}", meta.len()));
    }
    let recipe = fingerprint(&[&recipe]);
    if docker.has_image(REFERENCE, &recipe) {
        return Ok(false);
    }
    docker.build(state, "agents", REFERENCE, &recipe, |context| {
        rootfs::write(context, "Dockerfile", DOCKERFILE, 0o644)?;
        for binary in binaries {
            let name = binary.file_name().context("a binary has a name")?;
            fs::copy(binary, context.join(name))
                .with_context(|| format!("copying {}", binary.display()))?;
        }
        Ok(())
    })?;
    Ok(true)
}
