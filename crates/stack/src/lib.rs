//! The images of a stack, read from compose files, with the services that use each.
//!
//! ```text
//!   compose files ─► yaml ─► model ──► interpolate ─► images
//!   (last one wins)  positions, limits │   ▲          reference, file:line and service of each
//!                                      │   └─ .env or --env-file, then the environment over them
//!                                      └─ unsupported keys that can select images: an error
//! ```
//!
//! The rules are those of the [Compose Specification](https://github.com/compose-spec/compose-spec)
//! as `docker compose` 2 applies them. Keys that only configure containers (`ports`, `volumes`,
//! `deploy`, …) are accepted and never read, so variables that only they use may be unset. Keys
//! that can select images and are not supported yet (`build` without `image`, `extends`, `include`,
//! `profiles`, merge keys, `!reset` and `!override` around an image) are errors with file, line and
//! a remedy: no image is dropped silently.
//!
//! The library reads the given files and nothing else: no process environment, no working folder.

mod error;
mod location;

mod dotenv;
mod interpolate;
mod model;
mod project;
mod image;
mod yaml;

pub use error::{Fault, StackError};
pub use image::{Reason, StackImage};
pub use location::Location;
pub use project::{MAX_FILE, read};
