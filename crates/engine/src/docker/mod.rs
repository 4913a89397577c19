//! Docker, on both of its image stores: the only module that names bollard.
//!
//! ```text
//!   read     images out of an engine ─┐
//!   load     images into an engine ───┼─► api   the engine, call by call
//!   verify   an image, file by file ──┘
//! ```

mod api;
mod load;
mod read;
mod verify;

pub use self::api::{
    Bind, ContainerSpec, ContainerState, ContainerSummary, Docker, EngineError, ExecOutput,
    ImageEvents, ImageSettings, Powers, PublishedPort, Restart, VolumeSummary,
};
pub use self::load::{DockerSink, HeldImage, InvalidLoadWay, LoadWay, ThinArchive};
pub use self::read::method as way;
pub use self::read::{
    ContainerdContent, ContentStats, ContentWay, Export, ExportStats, FilesStats, Overlay2Files,
};
pub use self::verify::Verification;
