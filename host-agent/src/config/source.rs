//! Flags for the source of images and the export method.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use engine::docker::way::{InvalidWay, Places, Way};
use engine::{Address, Options, docker};

use crate::engine::Origin;

/// Source of images.
#[derive(Clone, Debug, Args)]
pub struct Source {
    /// The engine whose images are served: `unix:///path` or `tcp://host:port`; a folder of the OCI
    /// image layout: `oci:PATH`; a tar file of images: `docker-archive:PATH` or `oci-archive:PATH`.
    /// `DOCKER_HOST` is the default where it is set.
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_ENGINE", default_value = docker_host())]
    pub engine: Address,

    /// Export method for layers of an engine: `files` (a graphdriver's own files),
    /// `content-service`, `content-files` or `containerd-socket` (of the containerd store), or
    /// `save`. `auto` takes the most direct method that is available, and `save` for an image that
    /// this method cannot read.
    #[arg(long, value_name = "WAY", env = "LONGSHORE_EXPORT_WAY", default_value = "auto")]
    pub export_way: ExportWay,

    /// The engine's data-root as this process can read it, if not at the engine's own path: in a
    /// container of this agent, where it is mounted, read-only.
    #[arg(long, value_name = "FOLDER", env = "LONGSHORE_DATA_ROOT")]
    pub data_root: Option<PathBuf>,

    /// The socket of the containerd beneath the engine, when not in one of the usual places.
    #[arg(long, value_name = "SOCKET", env = "LONGSHORE_CONTAINERD_SOCKET")]
    pub containerd_socket: Option<PathBuf>,
}

/// An export method, or `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportWay(pub Option<Way>);

impl FromStr for ExportWay {
    type Err = InvalidWay;

    fn from_str(text: &str) -> Result<Self, InvalidWay> {
        match text {
            "auto" => Ok(Self(None)),
            way => way.parse().map(|way| Self(Some(way))),
        }
    }
}

impl Source {
    /// The same, as the agent takes it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            address: self.engine.clone(),
            options: Options {
                docker: docker::Options {
                    way: self.export_way.0,
                    places: Places {
                        data_root: self.data_root.clone(),
                        containerd_socket: self.containerd_socket.clone(),
                    },
                    ..docker::Options::default()
                },
            },
        }
    }
}

/// Returns `DOCKER_HOST`, or the usual address of an engine's socket.
fn docker_host() -> String {
    let told = std::env::var("DOCKER_HOST").ok().filter(|address| !address.is_empty());
    told.unwrap_or_else(|| "unix:///var/run/docker.sock".into())
}
