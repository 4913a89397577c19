//! Range images: engines of several releases on both of Docker's image stores, from a registry or from
//! Debian packages.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::Result;

use super::docker::Docker;
use super::machine::{RangeImage, Ranges, Store};
use super::packages;
use super::state::State;
use super::step::{fingerprint, join, step};
use super::{probe, rootfs};

/// The entry point of every range image, which starts its engine.
const RANGE_ENGINE: &str = include_str!("range-engine.sh");

/// Paths of [`RANGE_ENGINE`] and of its configuration in a range image.
const RANGE_ENGINE_PATH: &str = "usr/local/bin/range-engine";
const DAEMON_JSON_PATH: &str = "etc/longshore/daemon.json";

/// Packages that make a Debian root a range.
const PACKAGES: &[&str] =
    &["docker.io", "docker-cli", "iptables", "iproute2", "ca-certificates", "procps"];

/// The same packages in releases without a separate client package.
const OLD_PACKAGES: &[&str] = &["docker.io", "iptables", "iproute2", "ca-certificates", "procps"];

/// The registry of the public images.
const REGISTRY: &str = "registry-1.docker.io:443";

/// Timeout for a connection to the registry.
const REACH_TIMEOUT: Duration = Duration::from_secs(3);

/// The recipe of a range image.
#[derive(Debug)]
struct Recipe {
    /// The part of the name after `longshore/range:`.
    name: &'static str,
    /// The origin of the engine.
    origin: Origin,
    /// The engine's configuration, with an explicit store.
    daemon_json: &'static str,
    store: Store,
}

/// The origin of the engine in a range image.
#[derive(Debug)]
enum Origin {
    /// A registry, or else Debian packages.
    Made {
        /// The public image to build on, if it is available.
        public_image: &'static str,
        /// Debian suites with that engine, the most stable first.
        suites: &'static [&'static str],
        packages: &'static [&'static str],
    },
    /// The range image with this name, with another configuration.
    Like(&'static str),
}

/// The usual range images, each after the one that it derives from.
const RECIPES: [Recipe; 3] = [
    Recipe {
        name: "26.1-overlay2",
        origin: Origin::Made {
            public_image: "docker:26.1-dind",
            suites: &["trixie"],
            packages: PACKAGES,
        },
        daemon_json: OVERLAY2,
        store: Store::Overlay2,
    },
    Recipe {
        name: "28.5-containerd",
        origin: Origin::Made {
            public_image: "docker:28.5-dind",
            suites: &["forky", "sid"],
            packages: PACKAGES,
        },
        daemon_json: "{\"features\": {\"containerd-snapshotter\": true}}\n",
        store: Store::Containerd,
    },
    Recipe {
        name: "28.5-overlay2",
        origin: Origin::Like("28.5-containerd"),
        daemon_json: OVERLAY2,
        store: Store::Overlay2,
    },
];

/// The oldest supported engine, made only on request.
const OLDEST: Recipe = Recipe {
    name: "20.10-overlay2",
    origin: Origin::Made {
        public_image: "docker:20.10-dind",
        suites: &["bookworm"],
        packages: OLD_PACKAGES,
    },
    daemon_json: OVERLAY2,
    store: Store::Overlay2,
};

const OVERLAY2: &str =
    "{\"storage-driver\": \"overlay2\", \"features\": {\"containerd-snapshotter\": false}}\n";

/// The set of range images that includes this name (the part after `longshore/range:`); `None` for an
/// unknown name.
pub(crate) fn needed_for(name: &str) -> Option<Ranges> {
    match name {
        name if name == OLDEST.name => Some(Ranges::All),
        name => RECIPES.iter().any(|recipe| recipe.name == name).then_some(Ranges::Usual),
    }
}

impl Recipe {
    fn reference(&self) -> String {
        format!("longshore/range:{}", self.name)
    }

    fn fingerprint(&self) -> String {
        match &self.origin {
            Origin::Made { public_image, suites, packages } => {
                let fixed = [RANGE_ENGINE, self.name, public_image, self.daemon_json];
                fingerprint(&[&fixed[..], suites, packages].concat())
            }
            Origin::Like(other) => {
                let other = find(other).map(Self::fingerprint).unwrap_or_default();
                fingerprint(&[RANGE_ENGINE, self.name, &other, self.daemon_json])
            }
        }
    }
}

fn find(name: &str) -> Option<&'static Recipe> {
    static ALL: [Recipe; 3] = RECIPES;
    ALL.iter().find(|recipe| recipe.name == name)
}

/// Finds or makes the range images, and probes the engine in each.
///
/// # Errors
/// An image is available from no origin, or its engine does not run or has another store than expected.
pub(super) fn ensure(docker: &Docker, state: &State, ranges: Ranges) -> Result<Vec<RangeImage>> {
    let recipes: Vec<Recipe> = match ranges {
        Ranges::None => return Ok(Vec::new()),
        Ranges::Usual => RECIPES.into(),
        Ranges::All => RECIPES.into_iter().chain([OLDEST]).collect(),
    };
    let is_missing =
        |recipe: &Recipe| !docker.has_image(&recipe.reference(), &recipe.fingerprint());
    // Check the registry once for all images, and only if one is missing.
    let can_pull = recipes.iter().any(is_missing) && reaches_registry();
    let (own, like): (Vec<&Recipe>, Vec<&Recipe>) =
        recipes.iter().partition(|recipe| matches!(recipe.origin, Origin::Made { .. }));
    let made = all(docker, state, &own, can_pull)?;
    Ok(made.into_iter().chain(all(docker, state, &like, can_pull)?).collect())
}

/// Finds or makes several range images at once.
fn all(
    docker: &Docker,
    state: &State,
    recipes: &[&Recipe],
    can_pull: bool,
) -> Result<Vec<RangeImage>> {
    std::thread::scope(|scope| {
        let makers: Vec<_> = recipes
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
        let origin =
            if is_there { "already there" } else { make(docker, state, recipe, can_pull)? };
        let image = probe::probe(docker, state, recipe.name, &reference)?;
        anyhow::ensure!(
            image.store == recipe.store,
            "its engine uses the {} store instead of {}",
            image.store,
            recipe.store
        );
        let line =
            format!("{origin}, engine {} on the {} store", image.engine_version, image.store);
        Ok((image, line))
    })
}

/// Makes the image, and returns its origin in words.
fn make(docker: &Docker, state: &State, recipe: &Recipe, can_pull: bool) -> Result<&'static str> {
    let (public, suites, packages) = match &recipe.origin {
        Origin::Made { public_image, suites, packages } => (*public_image, *suites, *packages),
        Origin::Like(other) => {
            let other = format!("longshore/range:{other}");
            build_on(docker, state, recipe, &other)?;
            return Ok("built on another range image");
        }
    };
    let was_there = docker.inspect_image(public, "{{.Id}}").is_some();
    if was_there || (can_pull && docker.can_pull(public)) {
        if !was_there {
            state.note("pulled", &format!("{} {public}", docker.host()))?;
        }
        return build_on(docker, state, recipe, public).map(|()| "built on the public image");
    }
    packages::ensure(state, packages::IMAGES)?;
    let root = rootfs::bootstrap(state, recipe.name, suites, packages)?;
    rootfs::write(&root, RANGE_ENGINE_PATH, RANGE_ENGINE, 0o755)?;
    rootfs::write(&root, DAEMON_JSON_PATH, recipe.daemon_json, 0o644)?;
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

fn build_on(docker: &Docker, state: &State, recipe: &Recipe, base: &str) -> Result<()> {
    let dockerfile = format!(
        "FROM {base}\nCOPY root/ /\nVOLUME /var/lib/docker\nENTRYPOINT [\"/usr/local/bin/range-engine\"]\nCMD []\n"
    );
    docker.build(state, recipe.name, &recipe.reference(), &recipe.fingerprint(), |context| {
        rootfs::write(context, "root/usr/local/bin/range-engine", RANGE_ENGINE, 0o755)?;
        rootfs::write(context, "root/etc/longshore/daemon.json", recipe.daemon_json, 0o644)?;
        rootfs::write(context, "Dockerfile", &dockerfile, 0o644)
    })
}

/// Reports whether pulling may work: through a proxy, or by a direct connection to the registry.
fn reaches_registry() -> bool {
    if ["https_proxy", "HTTPS_PROXY"].iter().any(|name| std::env::var_os(name).is_some()) {
        return true;
    }
    let addresses = REGISTRY.to_socket_addrs().into_iter().flatten();
    addresses.take(2).any(|address| TcpStream::connect_timeout(&address, REACH_TIMEOUT).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipe_has_an_explicit_store_and_follows_its_origin() {
        let mut before: Vec<&str> = Vec::new();
        let mut fingerprints = std::collections::HashSet::new();
        for recipe in RECIPES.iter().chain([&OLDEST]) {
            let config: serde_json::Value = serde_json::from_str(recipe.daemon_json).unwrap();
            let says_containerd = config["features"]["containerd-snapshotter"].as_bool();
            assert_eq!(says_containerd, Some(recipe.store == Store::Containerd), "{recipe:?}");
            assert!(recipe.name.ends_with(&recipe.store.to_string()), "{recipe:?}");
            if let Origin::Like(other) = recipe.origin {
                assert!(before.contains(&other), "{recipe:?}");
            }
            before.push(recipe.name);
            assert!(fingerprints.insert(recipe.fingerprint()), "{recipe:?}");
        }
    }

    #[test]
    fn the_oldest_engine_is_made_only_on_request() {
        assert_eq!(needed_for("28.5-overlay2"), Some(Ranges::Usual));
        assert_eq!(needed_for("20.10-overlay2"), Some(Ranges::All));
        assert_eq!(needed_for("docker:dind"), None);
    }
}
