//! Docker, on both of its image stores: the only module that names bollard.
//!
//! ```text
//!   read     images out of an engine ─┐
//!   load     images into an engine ───┼─► api   the engine, call by call
//!   verify   an image, file by file ──┘
//! ```

mod api;
pub mod daemon;
mod engine;
mod load;
mod read;
mod verify;

pub use self::api::{
    Bind, ContainerSpec, ContainerState, ContainerSummary, Docker, ExecOutput, ImageSettings,
    Powers, PublishedPort, Restart, VolumeSummary,
};
pub use self::engine::{DockerEngine, Options};
pub use self::load::{DockerSink, InvalidLoadWay, LoadWay, ThinArchive};
pub use self::read::method as way;
pub use self::read::{
    ContainerdContent, ContentStats, ContentWay, Export, FilesStats, Overlay2Files,
};
