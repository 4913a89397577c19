//! The container of a range and the names of all that belongs to it, as pure functions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use control::RangeName;
use engine::docker::{Bind, ContainerSpec, ImageSettings, LoadWay, Restart};
use transfer::Digest;

use crate::error::RangeError;
use crate::isolation::Isolation;
use crate::labels::Labels;
use crate::settings::Settings;

/// The label of everything that Longshore makes in an engine.
pub(crate) const OURS: (&str, &str) = ("dev.longshore", "1");
/// The label with the name of the range that a container or volume belongs to.
pub(crate) const RANGE: &str = "dev.longshore.range";
/// The label with the name of the project.
pub(crate) const PROJECT: &str = "dev.longshore.project";
/// The label with the range image, as it was asked for.
pub(crate) const IMAGE: &str = "dev.longshore.range-image";
/// The label of all that belongs to a seed; its value is the seed's key.
pub(crate) const SEED: &str = "dev.longshore.seed";
/// The label with the digest of all that the container was made from.
pub(crate) const PARTS: &str = "dev.longshore.parts";

/// Mount point of the agent's binary, and its entry point.
pub(crate) const AGENT_BINARY: &str = "/usr/local/bin/longshore-dind-agent";
/// Mount point of the folder with the host agent's socket.
const HOST_FOLDER: &str = "/run/longshore/host";
/// The engine's data-root in the range: overlay2 does not work on a container's own root.
const DATA_ROOT: &str = "/var/lib/docker";
/// State folder of the agent.
const AGENT_STATE: &str = "/var/lib/longshore";

/// The variable that sets how an agent brings images in.
const LOAD_WAY: &str = "LONGSHORE_LOAD_WAY";

/// The folder of a range's socket, which the range has mounted.
fn folder_of(range: &RangeName, socket: &Path) -> Result<PathBuf, RangeError> {
    let folder = socket.parent().filter(|folder| folder.is_absolute());
    // Never the root of the host.
    match folder.filter(|folder| folder.file_name().is_some()) {
        Some(folder) => Ok(folder.to_owned()),
        None => Err(RangeError::Folder { range: range.clone(), socket: socket.to_owned() }),
    }
}

/// The names of what belongs to one range in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) container: String,
    pub(crate) data_volume: String,
    pub(crate) agent_volume: String,
}

impl Names {
    pub(crate) fn of(project: &str, range: &RangeName) -> Self {
        let container = format!("{project}-{range}");
        Self {
            data_volume: format!("{container}-data"),
            agent_volume: format!("{container}-agent"),
            container,
        }
    }

    /// The short container that copies a seed into both volumes. Names of ranges have no dots, so this
    /// and the following cannot be taken for a range.
    pub(crate) fn cloning(&self) -> String {
        format!("{}.clone", self.container)
    }

    /// The empty volume that marks both volumes as half made.
    pub(crate) fn half(&self) -> String {
        format!("{}.half", self.container)
    }

    /// The short container that seals both volumes.
    pub(crate) fn sealing(&self) -> String {
        format!("{}.seal", self.container)
    }

    /// Both volumes.
    pub(crate) fn volumes(&self) -> [&str; 2] {
        [&self.data_volume, &self.agent_volume]
    }
}

/// All that determines the container of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) range: &'a RangeName,
    /// The host agent's socket for it; the range has the folder of that mounted.
    pub(crate) socket: &'a Path,
    /// The range image as it was asked for.
    pub(crate) range_image: &'a str,
    /// Entry point and command of that image.
    pub(crate) image: &'a ImageSettings,
    pub(crate) isolation: &'a Isolation,
    /// The digest of the agent's binary.
    pub(crate) agent: Digest,
    /// The labels that people gave it.
    pub(crate) labels: &'a Labels,
    /// Labels of our own beside those of any range.
    pub(crate) more: &'a BTreeMap<String, String>,
}

/// The labels of all objects of one range.
pub(crate) fn labels(project: &str, range: &RangeName, given: &Labels) -> BTreeMap<String, String> {
    let (ours, one) = OURS;
    let own = [(ours, one), (RANGE, range.as_str()), (PROJECT, project)];
    let mut all = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    given.put_on(&mut all);
    all
}

impl Parts<'_> {
    /// The container, labelled with the digest of all its parts: a container with another digest was
    /// made from other parts.
    pub(crate) fn spec(&self) -> Result<ContainerSpec, RangeError> {
        let own: Vec<String> =
            self.image.entrypoint.iter().chain(&self.image.cmd).cloned().collect();
        if own.is_empty() {
            return Err(RangeError::NoEntryPoint { image: self.range_image.to_owned() });
        }
        let names = Names::of(&self.settings.project, self.range);
        let name = self.range.to_string();
        let supervisor = [AGENT_BINARY, "run", "--name", &name, "--"].map(str::to_owned);
        let mut spec = ContainerSpec {
            name: names.container,
            image: self.image.id.clone(),
            hostname: Some(name),
            labels: labels(&self.settings.project, self.range, self.labels),
            entrypoint: Some(supervisor.into_iter().chain(own).collect()),
            cmd: Some(Vec::new()),
            env: self.environment(),
            binds: self.binds()?,
            volumes: vec![
                (names.data_volume, DATA_ROOT.to_owned()),
                (names.agent_volume, AGENT_STATE.to_owned()),
            ],
            powers: self.isolation.powers(),
            network: self.settings.network.clone(),
            // Back after a kill of the range, and after the engine around it or the machine restarted.
            restart: Restart::UnlessStopped,
            ..ContainerSpec::default()
        };
        spec.labels.extend(self.more.clone());
        spec.labels.insert(IMAGE.to_owned(), self.range_image.to_owned());
        let parts = Digest::of(format!("{spec:?} {}", self.agent).as_bytes());
        spec.labels.insert(PARTS.to_owned(), parts.hex());
        Ok(spec)
    }

    /// The agent's variables; a setting with its default has none.
    fn environment(&self) -> BTreeMap<String, String> {
        match self.settings.load_way {
            LoadWay::Auto => BTreeMap::new(),
            way => BTreeMap::from([(LOAD_WAY.to_owned(), way.to_string())]),
        }
    }

    fn binds(&self) -> Result<Vec<Bind>, RangeError> {
        let bind = |source: &Path, target: &str| Bind {
            source: source.display().to_string(),
            target: target.to_owned(),
            read_only: true,
        };
        let folder = folder_of(self.range, self.socket)?;
        Ok(vec![bind(&self.settings.agent_binary, AGENT_BINARY), bind(&folder, HOST_FOLDER)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RangeName {
        text.parse().unwrap()
    }

    fn spec(
        isolation: &Isolation,
        entrypoint: &[&str],
        cmd: &[&str],
        agent: &[u8],
    ) -> Result<ContainerSpec, RangeError> {
        let settings = Settings::new("unix:///d", "unix:///h", "/bin/agent");
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let image = ImageSettings {
            id: "sha256:1".to_owned(),
            entrypoint: texts(entrypoint),
            cmd: texts(cmd),
            labels: BTreeMap::new(),
        };
        Parts {
            settings: &settings,
            range: &name("a"),
            socket: Path::new("/s/ranges/a/host/host.sock"),
            range_image: "dind:1",
            image: &image,
            isolation,
            agent: Digest::of(agent),
            labels: &["team=x".parse().unwrap()].into_iter().collect(),
            more: &BTreeMap::new(),
        }
        .spec()
    }

    #[test]
    fn the_agent_supervises_the_images_own_entry_point_and_command() {
        let check = |entrypoint: &[&str], cmd: &[&str], expected: &[&str]| {
            let spec = spec(&Isolation::Privileged, entrypoint, cmd, b"agent").unwrap();
            let all = spec.entrypoint.unwrap();
            assert_eq!(all[..5], [AGENT_BINARY, "run", "--name", "a", "--"].map(str::to_owned));
            assert_eq!(all[5..], *expected, "{entrypoint:?} {cmd:?}");
            assert_eq!(spec.cmd, Some(Vec::new()), "the image's command is not given twice");
        };
        check(&["dockerd-entrypoint.sh"], &[], &["dockerd-entrypoint.sh"]);
        check(&["a", "b"], &["c"], &["a", "b", "c"]);
        check(&[], &["dockerd"], &["dockerd"]);
        let none = spec(&Isolation::Privileged, &[], &[], b"agent");
        assert!(matches!(none, Err(RangeError::NoEntryPoint { .. })), "{none:?}");
    }

    #[test]
    fn a_range_can_write_nothing_of_the_host() {
        let spec = spec(&Isolation::Privileged, &["x"], &[], b"agent").unwrap();
        assert!(spec.binds.iter().all(|bind| bind.read_only), "{:?}", spec.binds);
        let sources: Vec<_> = spec.binds.iter().map(|bind| bind.source.as_str()).collect();
        assert_eq!(sources, ["/bin/agent", "/s/ranges/a/host"]);
    }

    #[test]
    fn other_parts_give_another_label() {
        let parts = |isolation: &Isolation, entrypoint: &[&str], agent: &[u8]| {
            spec(isolation, entrypoint, &[], agent).unwrap().labels[PARTS].clone()
        };
        let first = parts(&Isolation::Privileged, &["x"], b"agent");
        assert_eq!(first, parts(&Isolation::Privileged, &["x"], b"agent"));
        assert_ne!(first, parts(&Isolation::Privileged, &["x"], b"newer agent"));
        assert_ne!(first, parts(&Isolation::Privileged, &["y"], b"agent"));
        assert_ne!(first, parts(&Isolation::Capabilities(Vec::new()), &["x"], b"agent"));
    }

    #[test]
    fn only_a_folder_of_its_own_is_mounted() {
        let check = |socket: &str, good: bool| {
            assert_eq!(folder_of(&name("a"), Path::new(socket)).is_ok(), good, "{socket}");
        };
        check("/s/ranges/a/host/host.sock", true);
        check("/somewhere/host.sock", true);
        check("/host.sock", false);
        check("a/host/host.sock", false);
        check("", false);
    }
}
