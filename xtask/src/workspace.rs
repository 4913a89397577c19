//! The workspace that this program was built from.

use std::path::Path;

/// The root of the workspace that this program was built from.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}
