//! Services of compose files with their images, merged over all files, before substitution.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Fault, FaultAt, StackError};
use crate::location::{Location, Position};
use crate::yaml::{Node, NodeId, Pair, Tree, Value};

/// Top-level keys that select no images.
///
/// All but `services` and `include` of
/// <https://github.com/compose-spec/compose-go/blob/v2.0.2/schema/compose-spec.json>.
const TOP_LEVEL: &[&str] =
    &["configs", "models", "name", "networks", "secrets", "version", "volumes"];

/// Keys of a service that only configure its containers, from the same schema and its newer versions.
///
/// Other keys are refused, as compose refuses unknown keys: a later version may let one select an
/// image.
#[rustfmt::skip]
const RUN_TIME: &[&str] = &[
    "annotations", "attach", "blkio_config", "cap_add", "cap_drop", "cgroup", "cgroup_parent",
    "command", "configs", "container_name", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota",
    "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpus", "cpuset", "credential_spec",
    "depends_on", "deploy", "develop", "device_cgroup_rules", "devices", "dns", "dns_opt",
    "dns_search", "domainname", "entrypoint", "env_file", "environment", "expose",
    "external_links", "extra_hosts", "gpus", "group_add", "healthcheck", "hostname", "init", "ipc",
    "isolation", "label_file", "labels", "links", "logging", "mac_address", "mem_limit",
    "mem_reservation", "mem_swappiness", "memswap_limit", "models", "network_mode", "networks",
    "oom_kill_disable", "oom_score_adj", "pid", "pids_limit", "platform", "ports", "privileged",
    "pull_policy", "pull_refresh_after", "read_only", "restart", "runtime", "scale", "secrets",
    "security_opt", "shm_size", "stdin_open", "stop_grace_period", "stop_signal", "storage_opt",
    "sysctls", "tmpfs", "tty", "ulimits", "use_api_socket", "user", "userns_mode", "uts",
    "volumes_from", "working_dir",
];

/// Keys of a service whose list entries may name further images.
const HOOKS: [&str; 3] = ["post_start", "pre_start", "pre_stop"];

const MERGE: &str = "<<";

/// Services in the order of their first mention, each merged over all files.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) services: Vec<Service>,
    /// The project's name from the last file that has one.
    pub(crate) name: Option<Text>,
}

/// A service with its image.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// The location of its first mention.
    pub(crate) location: Location,
    /// Its image before substitution, from the last file that has one.
    pub(crate) image: Option<Text>,
    /// The location of its `build` key.
    pub(crate) build: Option<Location>,
}

/// A text before substitution.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) template: String,
    pub(crate) location: Location,
}

impl Model {
    /// Merges a file's documents over the earlier files.
    ///
    /// # Errors
    /// An invalid or unsupported node, with its location.
    pub(crate) fn add(&mut self, file: &Arc<Path>, tree: &Tree) -> Result<(), StackError> {
        let mut reader = Reader { model: self, file, tree };
        let read = match tree.documents.as_slice() {
            [] => Err(Fault::Empty.at(Position::START)),
            documents => documents.iter().try_for_each(|document| reader.document(*document)),
        };
        read.map_err(|FaultAt { position, fault }| fault.into_error(position.in_file(file)))
    }
}

/// Reads one file into the model.
struct Reader<'a> {
    model: &'a mut Model,
    file: &'a Arc<Path>,
    tree: &'a Tree,
}

impl<'a> Reader<'a> {
    fn document(&mut self, root: NodeId) -> Result<(), FaultAt> {
        for pair in self.mapping(root, "a compose file", "at the top")? {
            let node = self.tree.node(pair.value);
            match pair.key.as_str() {
                "services" => self.services(pair.value)?,
                "name" => self.model.name = node.scalar().map(|text| self.text(text, node)),
                "include" => {
                    let remedy = "pass the included file with its own `--compose`";
                    return Err(unsupported("include", "at the top", remedy).at(pair.position));
                }
                key if TOP_LEVEL.contains(&key) || key.starts_with("x-") => {}
                _ => return Err(unknown(pair, "a compose file")),
            }
        }
        Ok(())
    }

    fn services(&mut self, services: NodeId) -> Result<(), FaultAt> {
        for pair in self.mapping(services, "services", "in services")? {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if pair.key.is_empty() || !pair.key.chars().all(is_part) {
                return Err(Fault::ServiceName { name: pair.key.clone() }.at(pair.position));
            }
            self.service(pair)?;
        }
        Ok(())
    }

    fn service(&mut self, service: &Pair) -> Result<(), FaultAt> {
        let name = &service.key;
        let scope = format!("in service {name:?}");
        let mut image = None;
        let mut build = None;
        for pair in self.mapping(service.value, &format!("service {name:?}"), &scope)? {
            let node = self.tree.node(pair.value);
            match pair.key.as_str() {
                "image" => image = Some(self.image(name, &scope, node)?),
                "build" => {
                    refuse_tag(node, &scope)?;
                    build = Some(pair.position.in_file(self.file));
                }
                "volumes" => self.refuse_image_volumes(node, &scope)?,
                key if HOOKS.contains(&key) => self.refuse_hook_images(node, key, &scope)?,
                key => match unsupported_remedy(key) {
                    Some(remedy) => return Err(unsupported(key, &scope, remedy).at(pair.position)),
                    None if RUN_TIME.contains(&key) || key.starts_with("x-") => {}
                    None => return Err(unknown(pair, "a service")),
                },
            }
        }
        let location = service.position.in_file(self.file);
        match self.model.services.iter_mut().find(|known| known.name == *name) {
            Some(known) => {
                known.image = image.or(known.image.take());
                known.build = build.or(known.build.take());
            }
            None => {
                self.model.services.push(Service { name: name.clone(), location, image, build });
            }
        }
        Ok(())
    }

    fn image(&self, service: &str, scope: &str, node: &Node) -> Result<Text, FaultAt> {
        refuse_tag(node, scope)?;
        match &node.value {
            Value::Scalar { text, is_string: true } => Ok(self.text(text, node)),
            _ => Err(Fault::ImageNotString { service: service.to_owned() }.at(node.position)),
        }
    }

    /// Refuses volumes of the type `image`, which mount an image's files.
    fn refuse_image_volumes(&self, volumes: &Node, scope: &str) -> Result<(), FaultAt> {
        let Value::Sequence(entries) = &volumes.value else { return Ok(()) };
        for entry in entries {
            let kind = self.tree.get(*entry, "type");
            if let Some(kind) = kind.filter(|kind| kind.scalar() == Some("image")) {
                let remedy = "pass its image with `--image`, and remove the volume from this file";
                return Err(unsupported("type: image", scope, remedy).at(kind.position));
            }
        }
        Ok(())
    }

    /// Refuses hooks that run in a container of another image.
    fn refuse_hook_images(&self, hooks: &Node, key: &str, scope: &str) -> Result<(), FaultAt> {
        let Value::Sequence(entries) = &hooks.value else { return Ok(()) };
        for entry in entries {
            if let Some(image) = self.tree.get(*entry, "image") {
                let remedy = "pass its image with `--image`, and remove the hook from this file";
                return Err(unsupported(&format!("{key}: image"), scope, remedy).at(image.position));
            }
        }
        Ok(())
    }

    /// The entries of a mapping that selects images. Tags and merge keys, which could hide some, are
    /// refused.
    fn mapping(&self, id: NodeId, what: &str, scope: &str) -> Result<&'a [Pair], FaultAt> {
        let tree: &'a Tree = self.tree;
        let node = tree.node(id);
        refuse_tag(node, scope)?;
        let Value::Mapping(pairs) = &node.value else {
            return Err(Fault::NotMapping { what: what.to_owned() }.at(node.position));
        };
        match pairs.iter().find(|pair| pair.key == MERGE) {
            Some(merge) => {
                let remedy = "write out the merged keys, `image` at least";
                Err(unsupported(MERGE, scope, remedy).at(merge.position))
            }
            None => Ok(pairs),
        }
    }

    fn text(&self, template: &str, node: &Node) -> Text {
        Text { template: template.to_owned(), location: node.position.in_file(self.file) }
    }
}

/// The remedy for an unsupported key of a service that can select images; `None` for all other keys.
fn unsupported_remedy(key: &str) -> Option<&'static str> {
    match key {
        "extends" => Some("write out the inherited keys, `image` at least"),
        "profiles" => Some("remove the key to keep the service's image, or remove the service"),
        "provider" => Some("remove the service from this file: it runs no image"),
        _ => None,
    }
}

/// Refuses tags such as `!reset`, which control how compose merges files.
fn refuse_tag(node: &Node, scope: &str) -> Result<(), FaultAt> {
    match &node.tag {
        Some(tag) => {
            let remedy = "write the merged result to one file, and pass only that file";
            Err(unsupported(tag, scope, remedy).at(node.position))
        }
        None => Ok(()),
    }
}

fn unsupported(key: &str, scope: &str, remedy: &'static str) -> Fault {
    Fault::Unsupported { key: key.to_owned(), scope: scope.to_owned(), remedy }
}

fn unknown(pair: &Pair, what: &'static str) -> FaultAt {
    Fault::UnknownKey { key: crate::error::excerpt(&pair.key), what }.at(pair.position)
}

#[cfg(test)]
#[path = "model/tests.rs"]
mod tests;
