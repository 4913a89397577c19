//! The demo stack: images on one Debian base, with all features of real images.
//!
//! Comments in each Dockerfile name its features: whiteouts, opaque folders, links, special files,
//! names that archives must escape, setuid files, file capabilities, empty steps. The base is imported,
//! so that its layer has `user.*` attributes, which no builder keeps.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use rustix::fs::XattrFlags;

use super::docker::Docker;
use super::machine::RECIPE_LABEL;
use super::state::State;
use super::step::{fingerprint, join, step};
use super::{packages, rootfs};

/// The shared base image, which is not part of the stack itself.
const BASE: &str = "longshore-demo/base:1";

/// The base's Debian suite.
const SUITE: &str = "trixie";

/// Number of concurrent builds; unpacking packages keeps one core busy.
const BUILDERS: usize = 2;

/// Files in the base that the images change, replace and delete.
const FILES: [(&str, &str); 9] = [
    (
        "etc/dpkg/dpkg.cfg.d/longshore",
        "# An image that was cut off is never kept: no need to sync each file.\nforce-unsafe-io\n",
    ),
    (
        "etc/apt/apt.conf.d/longshore",
        "// Try again what a mirror drops, at once: after a delay, apt 3.0 can warn without end instead.\n\
         Acquire::Retries \"5\";\nAcquire::Retries::Delay \"false\";\n\
         // Keep neither archives nor indexes: they would only fatten the layers.\n\
         APT::Keep-Downloaded-Packages \"false\";\nDir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n",
    ),
    ("usr/share/longshore/seasons/spring", "green\n"),
    ("usr/share/longshore/seasons/summer", "long\n"),
    ("usr/share/longshore/seasons/autumn", "red\n"),
    ("usr/share/longshore/seasons/winter", "white\n"),
    ("usr/share/longshore/motto", "each layer once\n"),
    ("usr/share/longshore/grüße-世界", "a name that is not ASCII\n"),
    (ATTRIBUTED, "read my attributes\n"),
];

/// The file with [`ATTRIBUTES`].
const ATTRIBUTED: &str = "usr/share/longshore/attributed";

/// Extended attributes in the base: text, and bytes that are not text.
const ATTRIBUTES: [(&str, &[u8]); 2] =
    [("user.longshore.words", b"each layer once"), ("user.longshore.bytes", &[0, 1, 254, 255])];

/// An image of the stack.
#[derive(Debug)]
struct Image {
    name: &'static str,
    dockerfile: &'static str,
}

/// The images of the stack, the slowest builds first.
const IMAGES: [Image; 5] = [
    Image { name: "llvm", dockerfile: include_str!("stack/llvm.Dockerfile") },
    Image { name: "python", dockerfile: include_str!("stack/python.Dockerfile") },
    Image { name: "node", dockerfile: include_str!("stack/node.Dockerfile") },
    Image { name: "postgres", dockerfile: include_str!("stack/postgres.Dockerfile") },
    Image { name: "tiny", dockerfile: include_str!("stack/tiny.Dockerfile") },
];

impl Image {
    fn reference(&self) -> String {
        format!("longshore-demo/{}:1", self.name)
    }

    fn fingerprint(&self) -> String {
        fingerprint(&[&base_fingerprint(), self.dockerfile])
    }
}

fn base_fingerprint() -> String {
    let files = FILES.iter().flat_map(|(place, text)| [*place, *text]);
    fingerprint(&files.chain([SUITE]).chain(ATTRIBUTES.map(|(name, _)| name)).collect::<Vec<_>>())
}

/// Finds or makes the base.
///
/// # Errors
/// Debian cannot be bootstrapped, or the engine refuses the import.
pub(super) fn ensure_base(docker: &Docker, state: &State) -> Result<()> {
    let recipe = base_fingerprint();
    let is_built =
        IMAGES.iter().all(|image| docker.has_image(&image.reference(), &image.fingerprint()));
    if is_built || docker.has_image(BASE, &recipe) {
        return Ok(());
    }
    step(&format!("stack base {BASE}"), || {
        packages::ensure(state, packages::IMAGES)?;
        let name = "stack-base";
        let root = rootfs::bootstrap(state, name, &[SUITE], &["ca-certificates"])?;
        for (place, text) in FILES {
            rootfs::write(&root, place, text, 0o644)?;
        }
        attribute(&root.join(ATTRIBUTED))?;
        let changes =
            ["ENV DEBIAN_FRONTEND=noninteractive", "CMD [\"cat\", \"/etc/debian_version\"]"];
        rootfs::import(docker, state, name, BASE, &recipe, &changes)?;
        Ok(((), format!("Debian {SUITE} from packages")))
    })
}

fn attribute(path: &Path) -> Result<()> {
    for (name, value) in ATTRIBUTES {
        // A file system without extended attributes must not fail the set-up.
        match rustix::fs::setxattr(path, name, value, XattrFlags::empty()) {
            Err(error) if error != rustix::io::Errno::OPNOTSUPP => {
                return Err(error).with_context(|| format!("setting {name} on {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Finds or builds the images on the base, and returns their references.
///
/// # Errors
/// A build fails; the error is returned after all running builds have ended.
pub(super) fn ensure(docker: &Docker, state: &State) -> Result<Vec<String>> {
    let next = AtomicUsize::new(0);
    let built = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let builder = || {
            while let Some(image) = IMAGES.get(next.fetch_add(1, Ordering::Relaxed)) {
                built.fetch_add(usize::from(one(docker, state, image)?), Ordering::Relaxed);
            }
            Ok(())
        };
        let builders: Vec<_> = (0..BUILDERS).map(|_| scope.spawn(builder)).collect();
        builders.into_iter().map(join).collect::<Result<Vec<()>>>()
    })?;
    if 0 < built.into_inner() {
        // Remove build stages and images that lost their names; all inherit the base's label.
        docker.run(&["image", "prune", "--force", "--filter", &format!("label={RECIPE_LABEL}")])?;
    }
    Ok(IMAGES.iter().map(Image::reference).collect())
}

/// Finds or builds one image; returns whether it was built.
fn one(docker: &Docker, state: &State, image: &Image) -> Result<bool> {
    let reference = image.reference();
    step(&format!("stack image {reference}"), || {
        if docker.has_image(&reference, &image.fingerprint()) {
            return Ok((false, "already there".to_owned()));
        }
        let build = || {
            docker.build(state, image.name, &reference, &image.fingerprint(), |context| {
                rootfs::write(context, "Dockerfile", image.dockerfile, 0o644)
            })
        };
        // Retry once, since mirrors fail at times; finished steps are cached.
        build().or_else(|_| build())?;
        let size =
            docker.inspect_image(&reference, "{{.Size}}").and_then(|size| size.parse::<u64>().ok());
        Ok((true, format!("built, {} MB", size.unwrap_or(0) / 1_000_000)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_four_images_share_the_base() {
        let on_base = |image: &&Image| image.dockerfile.starts_with(&format!("FROM {BASE}\n"));
        assert!(4 <= IMAGES.iter().filter(on_base).count());
    }

    #[test]
    fn each_image_has_a_command_and_its_own_recipe() {
        for (i, image) in IMAGES.iter().enumerate() {
            assert!(image.dockerfile.contains("\nCMD ["), "{image:?}");
            for other in &IMAGES[i + 1..] {
                assert_ne!(image.fingerprint(), other.fingerprint());
            }
        }
    }
}
