//! A peer: skopeo, which copies from engine to engine.

use anyhow::{Context as _, Result};

use super::context::Bench;
use super::docker::Docker;
use crate::setup;

/// Copies the images given as arguments, one after another.
const SCRIPT: &str = "set -e; from=$1; into=$2; shift 2
for image; do
    skopeo --insecure-policy copy --quiet --src-daemon-host \"$from\" --dest-daemon-host \"$into\" \
\"docker-daemon:$image\" \"docker-daemon:$image\"
done";

/// A skopeo in a container that sees the host's processes, and through them every engine's socket.
#[derive(Debug)]
pub(super) struct Skopeo {
    runner: Docker,
    image: String,
}

impl Skopeo {
    /// Builds its image from the range image `from`, unless it exists.
    ///
    /// # Errors
    /// The build fails.
    pub(super) async fn ready(bench: &Bench, from: &str) -> Result<Self> {
        let from = from.to_owned();
        let image = tokio::task::spawn_blocking(move || setup::skopeo_image(&from)).await;
        let image = image.context("building skopeo's image")??;
        Ok(Self { runner: Docker::at(bench.host()), image })
    }

    /// Copies `images`.
    ///
    /// # Errors
    /// Skopeo fails.
    pub(super) async fn copy(&self, from: &Docker, into: &Docker, images: &[String]) -> Result<()> {
        let (from, into) = (seen_inside(from), seen_inside(into));
        // Access to another process's root needs the right to trace it.
        let sees = ["--pid=host", "--cap-add=SYS_PTRACE", "--security-opt=apparmor=unconfined"];
        let run = ["run", "--rm", "--network=host", "--label", setup::LABEL];
        let program = ["--entrypoint", "sh", &self.image, "-c", SCRIPT, "skopeo", &from, &into];
        let images: Vec<&str> = images.iter().map(String::as_str).collect();
        self.runner.run(&[&run[..], &sees, &program, &images].concat()).await.map(drop)
    }
}

/// The address of an engine's socket for a container that sees our processes but not our files.
fn seen_inside(engine: &Docker) -> String {
    match engine.host.strip_prefix("unix://") {
        Some(socket) if !socket.starts_with("/proc/") => {
            format!("unix:///proc/{}/root{socket}", std::process::id())
        }
        _ => engine.host.clone(),
    }
}
