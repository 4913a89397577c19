//! What a container is to be, in our own words.

use std::collections::BTreeMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
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

/// A folder or file of the host, mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the engine's host.
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
        let mut binds: Vec<_> = self.binds.iter().map(Bind::text).collect();
        binds.extend(self.volumes.iter().map(|(name, target)| format!("{name}:{target}")));
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
                binds.push("/sys/fs/cgroup:/sys/fs/cgroup".into());
                // The mounted groups are the host's, so their names must mean the same inside.
                config.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST);
            }
        }
        config.binds = Some(binds);
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
    fn text(&self) -> String {
        let mode = if self.read_only { ":ro" } else { "" };
        format!("{}:{}{mode}", self.source, self.target)
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
        assert!(config.binds.unwrap().contains(&"/sys/fs/cgroup:/sys/fs/cgroup".to_owned()));
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
    fn binds_say_whether_they_may_be_written() {
        let bind = |read_only| Bind { source: "/a".into(), target: "/b".into(), read_only };
        let spec = ContainerSpec {
            binds: vec![bind(true), bind(false)],
            volumes: vec![("data".into(), "/var/lib/docker".into())],
            ..Default::default()
        };
        let expected = ["/a:/b:ro", "/a:/b", "data:/var/lib/docker"].map(String::from).to_vec();
        assert_eq!(spec.host_config().binds, Some(expected));
    }

    #[test]
    fn a_port_of_zero_lets_the_engine_choose() {
        let port = |host| PublishedPort { container: 80, host_address: "127.0.0.1".into(), host };
        assert_eq!(port(0).binding().host_port, None);
        assert_eq!(port(8080).binding().host_port.as_deref(), Some("8080"));
        assert_eq!(port(0).key(), "80/tcp");
    }
}
