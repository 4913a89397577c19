//! What a container is to be, in our own words.

use std::collections::BTreeMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, Mount, MountType, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};

/// A container that is to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Its name; the engine makes one up when empty.
    pub name: String,
    /// The image, by reference or ID. It must be there: nothing is pulled.
    pub image: String,
    /// Its host name; the engine's choice when absent.
    pub hostname: Option<String>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entry point; the image's own when absent.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command; the image's own when absent.
    pub cmd: Option<Vec<String>>,
    /// Variables on top of the image's.
    pub env: BTreeMap<String, String>,
    /// Folders and files of the host.
    pub binds: Vec<Bind>,
    /// Named volumes and where each is mounted, read-write.
    pub volumes: Vec<(String, String)>,
    /// What it may do.
    pub powers: Powers,
    /// `bridge`, `host`, `none` or a network's name; the engine's default when absent.
    pub network: Option<String>,
    /// Ports reachable from outside.
    pub ports: Vec<PublishedPort>,
    /// Memory limit in bytes; none when absent.
    pub memory: Option<u64>,
    /// Signal that asks it to stop; the image's own when absent.
    pub stop_signal: Option<String>,
    /// What the engine does when it ends.
    pub restart: Restart,
}

/// What an engine does about a container that has ended, or that ran when the engine itself ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Nothing.
    #[default]
    Never,
    /// Starts it again, until somebody stops it. `docker stop` and `docker kill` both count as that;
    /// a kill of its process from outside does not.
    UnlessStopped,
}

/// A folder or file of the host, or a volume, mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the engine's host, or name of a volume.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A port of a container that the host publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedPort {
    /// The TCP port in the container.
    pub container: u16,
    /// The address on the host, such as `127.0.0.1`.
    pub host_address: String,
    /// The port on the host; 0 lets the engine choose.
    pub host: u16,
}

/// What a container may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Powers {
    /// What containers may by default.
    #[default]
    Default,
    /// `--privileged`.
    Privileged,
    /// The same strength piece by piece, for hosts whose own capability bounding set is not full,
    /// where `--privileged` fails. **As strong as root on the host**, as `--privileged` is.
    Capabilities(Vec<String>),
}

impl ContainerSpec {
    pub(in crate::docker) fn body(&self) -> ContainerCreateBody {
        ContainerCreateBody {
            hostname: self.hostname.clone(),
            image: Some(self.image.clone()),
            labels: Some(self.labels.clone().into_iter().collect()),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: Some(self.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            exposed_ports: Some(self.ports.iter().map(PublishedPort::key).collect()),
            stop_signal: self.stop_signal.clone(),
            host_config: Some(self.host_config()),
            ..Default::default()
        }
    }

    fn host_config(&self) -> HostConfig {
        let mut mounts: Vec<_> = self.binds.iter().map(Bind::mount).collect();
        mounts.extend(self.volumes.iter().map(|(name, target)| {
            Bind { source: name.clone(), target: target.clone(), read_only: false }.mount()
        }));
        let ports = self.ports.iter().map(|port| (port.key(), Some(vec![port.binding()])));
        let mut config = HostConfig {
            network_mode: self.network.clone(),
            port_bindings: Some(ports.collect()),
            // A limit above i64::MAX bytes is no limit.
            memory: self.memory.and_then(|bytes| i64::try_from(bytes).ok()),
            restart_policy: self.restart.policy(),
            ..Default::default()
        };
        match &self.powers {
            Powers::Default => {}
            Powers::Privileged => config.privileged = Some(true),
            Powers::Capabilities(capabilities) => {
                config.cap_add = Some(capabilities.clone());
                config.security_opt =
                    Some(["seccomp=unconfined", "apparmor=unconfined"].map(String::from).to_vec());
                // The command line's `systempaths=unconfined` is these two, emptied.
                config.masked_paths = Some(Vec::new());
                config.readonly_paths = Some(Vec::new());
                config.device_cgroup_rules = Some(vec!["a *:* rwm".into()]);
                mounts.push(Bind::at("/sys/fs/cgroup").mount());
                // The mounted groups are the host's, so their names must mean the same inside.
                config.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST);
            }
        }
        config.mounts = Some(mounts);
        config
    }
}

impl Restart {
    fn policy(self) -> Option<RestartPolicy> {
        let name = match self {
            Self::Never => return None,
            Self::UnlessStopped => RestartPolicyNameEnum::UNLESS_STOPPED,
        };
        Some(RestartPolicy { name: Some(name), maximum_retry_count: None })
    }
}

impl Bind {
    /// The host's folder at the same path in the container, read-write.
    fn at(path: &str) -> Self {
        Self { source: path.to_owned(), target: path.to_owned(), read_only: false }
    }

    /// A mount refuses a source that does not exist. The older `Binds` would make a folder there, as
    /// root and on the engine's host.
    fn mount(&self) -> Mount {
        let is_path = self.source.starts_with('/');
        Mount {
            typ: Some(if is_path { MountType::BIND } else { MountType::VOLUME }),
            source: Some(self.source.clone()),
            target: Some(self.target.clone()),
            read_only: Some(self.read_only),
            ..Default::default()
        }
    }
}

impl PublishedPort {
    fn key(&self) -> String {
        format!("{}/tcp", self.container)
    }

    fn binding(&self) -> PortBinding {
        let port = (self.host != 0).then(|| self.host.to_string());
        PortBinding { host_ip: Some(self.host_address.clone()), host_port: port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_by_capability_are_as_strong_as_privileged_and_never_both() {
        let all = Powers::Capabilities(vec!["CAP_SYS_ADMIN".into()]);
        let config = ContainerSpec { powers: all, ..Default::default() }.host_config();
        assert_eq!(config.privileged, None);
        assert_eq!(config.cap_add, Some(vec!["CAP_SYS_ADMIN".to_owned()]));
        assert_eq!(config.masked_paths, Some(Vec::new()));
        assert!(config.mounts.unwrap().contains(&Bind::at("/sys/fs/cgroup").mount()));
        let config =
            ContainerSpec { powers: Powers::Privileged, ..Default::default() }.host_config();
        assert_eq!((config.privileged, config.cap_add), (Some(true), None));
        assert_eq!(ContainerSpec::default().host_config().privileged, None);
    }

    #[test]
    fn a_container_is_started_again_only_where_it_was_asked_for() {
        let policy = |restart| ContainerSpec { restart, ..Default::default() }.host_config();
        assert_eq!(policy(Restart::Never).restart_policy, None);
        let policy = policy(Restart::UnlessStopped).restart_policy.unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::UNLESS_STOPPED));
    }

    #[test]
    fn binds_and_volumes_are_mounts_that_refuse_a_missing_source() {
        let bind = |source: &str, read_only| Bind {
            source: source.to_owned(),
            target: "/b".to_owned(),
            read_only,
        };
        let spec = ContainerSpec {
            binds: vec![bind("/a", true), bind("/a", false), bind("seed", true)],
            volumes: vec![("data".into(), "/var/lib/docker".into())],
            ..Default::default()
        };
        let config = spec.host_config();
        assert_eq!(config.binds, None, "the engine would make a folder for a missing source");
        let mounts = config.mounts.unwrap();
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| (mount.typ.unwrap(), mount.source.as_deref(), mount.read_only))
            .collect();
        assert_eq!(
            found,
            [
                (MountType::BIND, Some("/a"), Some(true)),
                (MountType::BIND, Some("/a"), Some(false)),
                (MountType::VOLUME, Some("seed"), Some(true)),
                (MountType::VOLUME, Some("data"), Some(false)),
            ]
        );
    }

    #[test]
    fn a_port_of_zero_lets_the_engine_choose() {
        let port = |host| PublishedPort { container: 80, host_address: "127.0.0.1".into(), host };
        assert_eq!(port(0).binding().host_port, None);
        assert_eq!(port(8080).binding().host_port.as_deref(), Some("8080"));
        assert_eq!(port(0).key(), "80/tcp");
    }
}
