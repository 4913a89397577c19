//! One image that xtask makes and no range or stack needs: found, or built.

use anyhow::Result;

use super::docker::Docker;
use super::engine;
use super::state::State;
use super::step;

/// Makes the image `reference` with `make`, which returns whether it had to build, and returns the name.
///
/// # Errors
/// No engine is available, or `make` fails.
pub(super) fn ensure_image(
    reference: &str,
    make: impl FnOnce(&Docker, &State) -> Result<bool>,
) -> Result<String> {
    let state = State::open()?;
    let _lock = state.lock()?;
    let engine = engine::ensure(&state)?;
    step::step(&format!("image {reference}"), || {
        let made = make(&engine.docker, &state)?;
        Ok((reference.to_owned(), (if made { "built" } else { "already there" }).to_owned()))
    })
}
