//! The ranges of a site.

use anyhow::Result;
use range::Ranges;

use crate::site::Site;

/// Connects to the engine that runs the ranges. The host agent is called when it is first needed.
///
/// # Errors
/// The engine does not answer, or an address is malformed.
pub(super) async fn connect(site: &Site, concurrency: Option<usize>) -> Result<Ranges> {
    Ranges::connect(site.settings(concurrency)).await.map_err(|error| site.explain(&error))
}
