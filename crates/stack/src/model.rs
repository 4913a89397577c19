//! What compose files say about images: services merged over all files, nothing put in yet.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Fault, Found, StackError};
use crate::place::{Place, Spot};
use crate::yaml::{Node, NodeId, Pair, Tree, Value};

/// Keys of a file that say nothing about images.
///
/// All but `services` and `include` of
/// <https://github.com/compose-spec/compose-go/blob/v2.0.2/schema/compose-spec.json>.
const TOP_LEVEL: &[&str] =
    &["configs", "models", "name", "networks", "secrets", "version", "volumes"];

/// Keys of a service that only say how it runs, by the same schema and its newer versions.
///
/// A key that is not here may choose an image in a version of compose to come: it is refused, as
/// compose refuses what it does not know.
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

/// Keys of a service that may hold images of their own in entries of a list.
const HOOKS: [&str; 3] = ["post_start", "pre_start", "pre_stop"];

const MERGE: &str = "<<";

/// Services in the order of their first mention, each as all files together say.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) services: Vec<Service>,
    /// The project's name, as the last file that has one says it.
    pub(crate) name: Option<Text>,
}

/// A service, as far as its image goes.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Where it is first mentioned.
    pub(crate) place: Place,
    /// Its image with variables; the last file that says one decides.
    pub(crate) image: Option<Text>,
    /// Where a build is described.
    pub(crate) build: Option<Place>,
}

/// A text with variables that are not put in yet.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) template: String,
    pub(crate) place: Place,
}

impl Model {
    /// Puts a file's documents over what earlier files said.
    ///
    /// # Errors
    /// What is not understood or makes no sense, with its place.
    pub(crate) fn add(&mut self, file: &Arc<Path>, tree: &Tree) -> Result<(), StackError> {
        let mut reader = Reader { model: self, file, tree };
        let read = match tree.documents.as_slice() {
            [] => Err(Fault::Empty.at(Spot::START)),
            documents => documents.iter().try_for_each(|document| reader.document(*document)),
        };
        read.map_err(|Found { spot, fault }| fault.refused(spot.of(file)))
    }
}

/// One file on its way into the model.
struct Reader<'a> {
    model: &'a mut Model,
    file: &'a Arc<Path>,
    tree: &'a Tree,
}

impl<'a> Reader<'a> {
    fn document(&mut self, root: NodeId) -> Result<(), Found> {
        for pair in self.mapping(root, "a compose file", "at the top")? {
            let node = self.tree.node(pair.value);
            match pair.key.as_str() {
                "services" => self.services(pair.value)?,
                "name" => self.model.name = node.scalar().map(|text| self.text(text, node)),
                "include" => {
                    let remedy = "name the included file with a --compose of its own";
                    return Err(not_understood("include", "at the top", remedy).at(pair.spot));
                }
                key if TOP_LEVEL.contains(&key) || key.starts_with("x-") => {}
                _ => return Err(unknown(pair, "a compose file")),
            }
        }
        Ok(())
    }

    fn services(&mut self, services: NodeId) -> Result<(), Found> {
        for pair in self.mapping(services, "services", "in services")? {
            let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if pair.key.is_empty() || !pair.key.chars().all(is_part) {
                return Err(Fault::ServiceName { name: pair.key.clone() }.at(pair.spot));
            }
            self.service(pair)?;
        }
        Ok(())
    }

    fn service(&mut self, service: &Pair) -> Result<(), Found> {
        let name = &service.key;
        let of = format!("in service {name:?}");
        let mut image = None;
        let mut build = None;
        for pair in self.mapping(service.value, &format!("service {name:?}"), &of)? {
            let node = self.tree.node(pair.value);
            match pair.key.as_str() {
                "image" => image = Some(self.image(name, &of, node)?),
                "build" => {
                    refuse_tag(node, &of)?;
                    build = Some(pair.spot.of(self.file));
                }
                "volumes" => self.refuse_image_volumes(node, &of)?,
                key if HOOKS.contains(&key) => self.refuse_hook_images(node, key, &of)?,
                key => match not_understood_yet(key) {
                    Some(remedy) => return Err(not_understood(key, &of, remedy).at(pair.spot)),
                    None if RUN_TIME.contains(&key) || key.starts_with("x-") => {}
                    None => return Err(unknown(pair, "a service")),
                },
            }
        }
        let place = service.spot.of(self.file);
        match self.model.services.iter_mut().find(|there| there.name == *name) {
            Some(there) => {
                there.image = image.or(there.image.take());
                there.build = build.or(there.build.take());
            }
            None => self.model.services.push(Service { name: name.clone(), place, image, build }),
        }
        Ok(())
    }

    fn image(&self, service: &str, of: &str, node: &Node) -> Result<Text, Found> {
        refuse_tag(node, of)?;
        match &node.value {
            Value::Scalar { text, is_text: true } => Ok(self.text(text, node)),
            _ => Err(Fault::ImageNotText { service: service.to_owned() }.at(node.spot)),
        }
    }

    /// A volume of the type `image` mounts an image's files.
    fn refuse_image_volumes(&self, volumes: &Node, of: &str) -> Result<(), Found> {
        let Value::Sequence(entries) = &volumes.value else { return Ok(()) };
        for entry in entries {
            let kind = self.tree.get(*entry, "type");
            if let Some(kind) = kind.filter(|kind| kind.scalar() == Some("image")) {
                let remedy = "name its image with --image, and leave the volume out of this file";
                return Err(not_understood("type: image", of, remedy).at(kind.spot));
            }
        }
        Ok(())
    }

    /// A hook may run in a container of another image.
    fn refuse_hook_images(&self, hooks: &Node, key: &str, of: &str) -> Result<(), Found> {
        let Value::Sequence(entries) = &hooks.value else { return Ok(()) };
        for entry in entries {
            if let Some(image) = self.tree.get(*entry, "image") {
                let remedy = "name its image with --image, and leave the hook out of this file";
                return Err(not_understood(&format!("{key}: image"), of, remedy).at(image.spot));
            }
        }
        Ok(())
    }

    /// The entries of a mapping in which images are chosen: no tag and no merge key may hide any.
    fn mapping(&self, id: NodeId, what: &str, of: &str) -> Result<&'a [Pair], Found> {
        let tree: &'a Tree = self.tree;
        let node = tree.node(id);
        refuse_tag(node, of)?;
        let Value::Mapping(pairs) = &node.value else {
            return Err(Fault::NotMapping { what: what.to_owned() }.at(node.spot));
        };
        match pairs.iter().find(|pair| pair.key == MERGE) {
            Some(merge) => {
                let remedy = "write out the keys that it would bring, the image first of all";
                Err(not_understood(MERGE, of, remedy).at(merge.spot))
            }
            None => Ok(pairs),
        }
    }

    fn text(&self, template: &str, node: &Node) -> Text {
        Text { template: template.to_owned(), place: node.spot.of(self.file) }
    }
}

/// What to do instead of a key of a service that chooses images and is not understood; `None` for
/// all other keys.
fn not_understood_yet(key: &str) -> Option<&'static str> {
    match key {
        "extends" => Some("write out here what it would bring, the image first of all"),
        "profiles" => {
            Some("leave the key out to have the image, or leave the service out not to have it")
        }
        "provider" => Some("leave the service out of this file: it is not run from an image"),
        _ => None,
    }
}

/// Tags of compose say how files are merged.
fn refuse_tag(node: &Node, of: &str) -> Result<(), Found> {
    match &node.tag {
        Some(tag) => {
            let remedy = "write the outcome into a file of its own, and name that alone";
            Err(not_understood(tag, of, remedy).at(node.spot))
        }
        None => Ok(()),
    }
}

fn not_understood(key: &str, of: &str, remedy: &'static str) -> Fault {
    Fault::NotUnderstood { key: key.to_owned(), of: of.to_owned(), remedy }
}

fn unknown(pair: &Pair, what: &'static str) -> Found {
    Fault::UnknownKey { key: crate::error::excerpt(&pair.key), what }.at(pair.spot)
}

#[cfg(test)]
#[path = "model/tests.rs"]
mod tests;
