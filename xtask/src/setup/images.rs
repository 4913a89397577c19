//! Range images: one for each of Docker's image stores, from a registry or from Debian packages.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::docker::Docker;
use super::packages;
use super::state::State;
use super::step::{fingerprint, join, step};
use super::{RangeImage, Store, probe, rootfs};

/// Starts the engine in a range; the entry point of every range image.
const RANGE_ENGINE: &str = include_str!("range-engine.sh");

/// Where [`RANGE_ENGINE`] and what it reads lie in a range image.
const RANGE_ENGINE_PLACE: &str = "usr/local/bin/range-engine";
const DAEMON_JSON_PLACE: &str = "etc/longshore/daemon.json";

/// What a Debian root needs to be a range.
const PACKAGES: [&str; 6] =
    ["docker.io", "docker-cli", "iptables", "iproute2", "ca-certificates", "procps"];

/// The registry that the public images come from.
const REGISTRY: &str = "registry-1.docker.io:443";

/// How long the registry may take to accept a connection before it counts as out of reach.
const REACH_LIMIT: Duration = Duration::from_secs(3);

/// How one range image is made.
#[derive(Debug)]
struct Recipe {
    /// The part of the name after `longshore/range:`.
    name: &'static str,
    /// The image to build on where it can be had.
    public_image: &'static str,
    /// Debian suites with that engine, the one that moves least first.
    suites: &'static [&'static str],
    /// The engine's configuration: its store, said outright.
    daemon_json: &'static str,
    store: Store,
}

const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "26.1-overlay2",
        public_image: "docker:26.1-dind",
        suites: &["trixie"],
        daemon_json: "{\"storage-driver\": \"overlay2\", \"features\": {\"containerd-snapshotter\": false}}\n",
        store: Store::Overlay2,
    },
    Recipe {
        name: "28.5-containerd",
        public_image: "docker:28.5-dind",
        suites: &["forky", "sid"],
        daemon_json: "{\"features\": {\"containerd-snapshotter\": true}}\n",
        store: Store::Containerd,
    },
];

impl Recipe {
    fn reference(&self) -> String {
        format!("longshore/range:{}", self.name)
    }

    fn fingerprint(&self) -> String {
        let fixed = [RANGE_ENGINE, self.name, self.public_image, self.daemon_json];
        fingerprint(&[&fixed[..], self.suites, &PACKAGES[..]].concat())
    }
}

/// Finds or makes the range images, and asks the engine in each who it is.
///
/// # Errors
/// When an image can be had from nowhere, or the engine inside does not run or is another than meant.
pub(super) fn ensure(docker: &Docker, state: &State) -> Result<Vec<RangeImage>> {
    let is_missing =
        |recipe: &Recipe| !docker.has_image(&recipe.reference(), &recipe.fingerprint());
    // One question for all, asked only when there is something to get.
    let can_pull = RECIPES.iter().any(is_missing) && reaches_registry();
    std::thread::scope(|scope| {
        let makers: Vec<_> = RECIPES
            .iter()
            .map(|recipe| scope.spawn(move || one(docker, state, recipe, can_pull)))
            .collect();
        makers.into_iter().map(join).collect()
    })
}

fn one(docker: &Docker, state: &State, recipe: &Recipe, can_pull: bool) -> Result<RangeImage> {
    let reference = recipe.reference();
    step(&format!("range image {reference}"), || {
        let is_there = docker.has_image(&reference, &recipe.fingerprint());
        let origin = if is_there { "there" } else { make(docker, state, recipe, can_pull)? };
        let image = probe::probe(docker, state, recipe.name, &reference)?;
        anyhow::ensure!(
            image.store == recipe.store,
            "the engine inside uses the store {}, not {}",
            image.store,
            recipe.store
        );
        let line =
            format!("{origin}, engine {} on the {} store", image.engine_version, image.store);
        Ok((image, line))
    })
}

/// Makes the image and says where it came from.
fn make(docker: &Docker, state: &State, recipe: &Recipe, can_pull: bool) -> Result<&'static str> {
    let public = recipe.public_image;
    let was_there = docker.inspect_image(public, "{{.Id}}").is_some();
    if was_there || (can_pull && docker.can_pull(public)) {
        if !was_there {
            state.note("pulled", &format!("{} {public}", docker.host()))?;
        }
        return build_on(docker, state, recipe).map(|()| "built on the public image");
    }
    packages::ensure(state, packages::IMAGES)?;
    let root = rootfs::bootstrap(state, recipe.name, recipe.suites, &PACKAGES)?;
    rootfs::write(&root, RANGE_ENGINE_PLACE, RANGE_ENGINE, 0o755)?;
    rootfs::write(&root, DAEMON_JSON_PLACE, recipe.daemon_json, 0o644)?;
    let changes = [
        "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "VOLUME /var/lib/docker",
        "ENTRYPOINT [\"/usr/local/bin/range-engine\"]",
    ];
    rootfs::import(
        docker,
        state,
        recipe.name,
        &recipe.reference(),
        &recipe.fingerprint(),
        &changes,
    )?;
    Ok("made from Debian packages")
}

fn build_on(docker: &Docker, state: &State, recipe: &Recipe) -> Result<()> {
    let context = state.build().join(format!("{}.context", recipe.name));
    rootfs::remove(&context)?;
    rootfs::write(&context, "root/usr/local/bin/range-engine", RANGE_ENGINE, 0o755)?;
    rootfs::write(&context, "root/etc/longshore/daemon.json", recipe.daemon_json, 0o644)?;
    let dockerfile = format!(
        "FROM {}\nCOPY root/ /\nVOLUME /var/lib/docker\nENTRYPOINT [\"/usr/local/bin/range-engine\"]\nCMD []\n",
        recipe.public_image
    );
    fs::write(context.join("Dockerfile"), dockerfile).context("writing a Dockerfile")?;
    let log = state.build().join(format!("{}.log", recipe.name));
    docker.build(&recipe.reference(), &recipe.fingerprint(), &context, &log)?;
    rootfs::remove(&context)?;
    rootfs::remove(&log)
}

/// Whether pulling is worth a try: a proxy may lead to the registry, or a connection does.
fn reaches_registry() -> bool {
    if ["https_proxy", "HTTPS_PROXY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return true;
    }
    let addresses = REGISTRY.to_socket_addrs().into_iter().flatten();
    addresses.take(2).any(|address| TcpStream::connect_timeout(&address, REACH_LIMIT).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_store_has_one_recipe_that_says_it_outright() {
        for recipe in &RECIPES {
            let config: serde_json::Value = serde_json::from_str(recipe.daemon_json).unwrap();
            let says_containerd = config["features"]["containerd-snapshotter"].as_bool();
            assert_eq!(says_containerd, Some(recipe.store == Store::Containerd), "{recipe:?}");
            assert!(recipe.name.ends_with(&recipe.store.to_string()), "{recipe:?}");
        }
        assert_ne!(RECIPES[0].fingerprint(), RECIPES[1].fingerprint());
    }
}
