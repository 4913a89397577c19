//! What a stack wants: compose files read as the list of their images, each with its reasons.
//!
//! ```text
//!   compose files ─► yaml ─► model ──► interpolate ─► wanted images
//!   (later wins)     positions, limits │   ▲            reference, file:line and service of each
//!                                      │   └─ .env or --env-file, environment over them
//!                                      └─ what chooses images and is not understood: an error
//! ```
//!
//! The rules are those of the [Compose Specification](https://github.com/compose-spec/compose-spec)
//! as `docker compose` 2 follows them. Keys that only say how containers run (`ports`, `volumes`,
//! `deploy`, …) are taken as they are and never read, so that a variable which only they need may
//! be missing here. Keys that choose images and are not understood yet (`build` without `image`,
//! `extends`, `include`, `profiles`, merge keys, `!reset` and `!override` around an image) are
//! errors that name file, line and a way out: no image is left out in silence.
//!
//! The library reads the named files and nothing else: no process environment, no working folder.

mod error;
mod place;

mod dotenv;
mod interpolate;
mod model;
mod project;
mod wanted;
mod yaml;

pub use error::{Fault, StackError};
pub use place::Place;
pub use project::{MAX_FILE, read};
pub use wanted::{Reason, Wanted};
