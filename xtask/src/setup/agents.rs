//! The image with both agents and nothing else: for compose files and pods in which they run beside
//! engines.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::docker::Docker;
use super::state::State;
use super::step::fingerprint;
use super::{ensure_image, rootfs};

/// The image's name; its tag is the version of the agents.
const REFERENCE: &str = concat!("longshore/agents:", env!("CARGO_PKG_VERSION"));

/// Both binaries are linked statically, so that they need nothing beside them.
const DOCKERFILE: &str = "FROM scratch\nCOPY longshore-host-agent longshore-dind-agent /usr/local/bin/\n\
                          ENV PATH=/usr/local/bin\n";

/// Makes the image of these binaries, as far as it is not there, and says what it is called.
///
/// # Errors
/// When no engine can be had or the build fails.
pub(crate) fn image(binaries: &[&Path]) -> Result<String> {
    ensure_image(REFERENCE, |docker, state| make(docker, state, binaries))
}

/// Whether it had to be made.
fn make(docker: &Docker, state: &State, binaries: &[&Path]) -> Result<bool> {
    let mut recipe = DOCKERFILE.to_owned();
    for binary in binaries {
        let meta = fs::metadata(binary).with_context(|| format!("reading {}", binary.display()))?;
        let changed = meta.modified().context("this file system tells no times")?;
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
