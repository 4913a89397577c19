//! The image with a skopeo that today's engines answer, to be measured beside.
//!
//! Before 1.14.2 it asks in version 1.22 of the engine's API, which engines refuse from 25.0 on
//! (containers/skopeo#2202); Debian 12 has 1.9. A range image's own release has a newer one.

use anyhow::{Context as _, Result};

use super::docker::Docker;
use super::state::State;
use super::step::fingerprint;
use super::{ensure_image, rootfs};

/// The image's name.
const REFERENCE: &str = "longshore/skopeo:1";

/// Debian's package, or Alpine's where the range image is Docker's own.
const INSTALL: &str = "RUN if command -v apt-get; then \
     apt-get --quiet update && apt-get --quiet --yes --option APT::Sandbox::User=root install \
     --no-install-recommends skopeo; else apk add skopeo; fi\n\
     ENTRYPOINT []\n";

/// Makes the image from `range_image`, unless it is there, and says what it is called.
///
/// # Errors
/// When no engine can be had or the build fails.
pub(crate) fn image(range_image: &str) -> Result<String> {
    ensure_image(REFERENCE, |docker, state| make(docker, state, range_image))
}

/// Whether it had to be made.
fn make(docker: &Docker, state: &State, range_image: &str) -> Result<bool> {
    let id = docker.inspect_image(range_image, "{{.Id}}");
    let id = id.with_context(|| format!("there is no image {range_image}"))?;
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
