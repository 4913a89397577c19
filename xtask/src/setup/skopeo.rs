//! The image with a skopeo that works with current engines, for the bench.
//!
//! Before 1.14.2, skopeo used version 1.22 of the engine's API, which engines refuse since 25.0
//! (containers/skopeo#2202). Debian 12 has 1.9; the releases in range images have a newer one.

use anyhow::{Context as _, Result};

use super::docker::Docker;
use super::own_image::ensure_image;
use super::rootfs;
use super::state::State;
use super::step::fingerprint;

/// The image's name.
const REFERENCE: &str = "longshore/skopeo:1";

/// Installs Debian's package, or Alpine's if the range image is based on Docker's public image.
const INSTALL: &str = "RUN if command -v apt-get; then \
     apt-get --quiet update && apt-get --quiet --yes --option APT::Sandbox::User=root install \
     --no-install-recommends skopeo; else apk add skopeo; fi\n\
     ENTRYPOINT []\n";

/// Builds the image from `range_image`, unless it exists, and returns its name.
///
/// # Errors
/// No engine is available, or the build fails.
pub(crate) fn image(range_image: &str) -> Result<String> {
    ensure_image(REFERENCE, |docker, state| make(docker, state, range_image))
}

/// Builds the image if needed; returns whether it did.
fn make(docker: &Docker, state: &State, range_image: &str) -> Result<bool> {
    let id = docker.inspect_image(range_image, "{{.Id}}");
    let id = id.with_context(|| format!("the engine has no image {range_image}"))?;
    let dockerfile = format!("FROM {range_image}\n{INSTALL}");
    let recipe = fingerprint(&[&id, &dockerfile]);
    if docker.has_image(REFERENCE, &recipe) {
        return Ok(false);
    }
    docker.build(state, "skopeo", REFERENCE, &recipe, |context| {
        rootfs::write(context, "Dockerfile", &dockerfile, 0o644)
    })?;
    Ok(true)
}
