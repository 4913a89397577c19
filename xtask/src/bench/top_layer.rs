//! Images with one more layer of 21 MB, and for the engine's own `load` an archive with only that layer.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::context::Bench;
use super::docker::Docker;
use super::thin_archive;
use crate::setup::Store;

/// Part of the name of the base image; without a match, the first image is the base.
const BASE: &str = "node";

/// The layer: files with 1 MB of noise each.
const FILES: usize = 21;
const FILE_BYTES: u64 = 1_000_000;

/// For each round, an image to sync and one for the engine's own load. No layer is used twice.
#[derive(Debug)]
pub(super) struct TopLayers {
    by_sync: Vec<String>,
    by_load: Vec<Thin>,
    folder: PathBuf,
}

/// An image, and an archive with only its top layer.
#[derive(Clone, Debug)]
pub(super) struct Thin {
    pub(super) image: String,
    archive: PathBuf,
}

impl Thin {
    /// Loads the archive with the docker client.
    pub(super) async fn load(&self, into: &Docker) -> Result<()> {
        into.load(&self.archive).await
    }
}

impl TopLayers {
    /// Builds the images on the host.
    pub(super) async fn built(bench: &Bench, store: Store) -> Result<Self> {
        let host = Docker::at(bench.host());
        let folder = bench.folder.join("layers");
        let base = bench.images.iter().find(|image| image.contains(BASE));
        let base = base.or(bench.images.first()).context("the bench has no image")?;
        let mut layers = Self { by_sync: Vec::new(), by_load: Vec::new(), folder };
        for round in 0..bench.rounds {
            bench.say(&format!(
                "building images with a layer of 21 MB, {} of {}",
                round + 1,
                bench.rounds
            ));
            let name = |how: &str| format!("longshore-bench/top-{how}-{store}:{round}");
            layers.by_sync.push(layers.build(&host, base, name("sync")).await?);
            let image = layers.build(&host, base, name("load")).await?;
            let archive = layers.folder.join(format!("{round}.tar"));
            let whole = layers.folder.join("whole.tar");
            host.save(std::slice::from_ref(&image), &whole).await?;
            thin_archive::archive(&whole, &image, &archive)?;
            fs::remove_file(&whole).with_context(|| format!("removing {}", whole.display()))?;
            layers.by_load.push(Thin { image, archive });
        }
        Ok(layers)
    }

    /// The image to sync in this round, and the one for the engine's own load.
    pub(super) fn of(&self, round: usize) -> (&str, &Thin) {
        (&self.by_sync[round], &self.by_load[round])
    }

    /// Removes the images and archives.
    pub(super) async fn end(self, bench: &Bench) -> Result<()> {
        let host = Docker::at(bench.host());
        host.remove_images(&self.by_sync).await;
        let loaded: Vec<String> = self.by_load.into_iter().map(|thin| thin.image).collect();
        host.remove_images(&loaded).await;
        super::testbed::remove(&self.folder)
    }

    async fn build(&self, host: &Docker, base: &str, image: String) -> Result<String> {
        let context = self.folder.join("context");
        super::testbed::remove(&context)?;
        fs::create_dir_all(context.join("layer"))
            .with_context(|| format!("creating {}", context.display()))?;
        for number in 0..FILES {
            noise(&context.join(format!("layer/{number}")))?;
        }
        let dockerfile = format!("FROM {base}\nLABEL dev.longshore=1\nCOPY layer /layer\n");
        fs::write(context.join("Dockerfile"), dockerfile).context("writing a Dockerfile")?;
        let folder = context.display().to_string();
        host.run(&["build", "--quiet", "--force-rm", "--tag", &image, &folder]).await?;
        Ok(image)
    }
}

/// Writes a file of noise, so that layers do not compress and all differ.
fn noise(path: &Path) -> Result<()> {
    let random = fs::File::open("/dev/urandom").context("opening /dev/urandom")?;
    let mut file =
        fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
    std::io::copy(&mut random.take(FILE_BYTES), &mut file)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}
