//! Which image a name in a request means.

use transfer::Reference;

use super::Refusal;

/// Longest name in bytes, as in image names anywhere.
const MAX_NAME: usize = 255;

/// A repository as it was asked for: what the module's table says that it may mean, the first that
/// there is. Never empty; its parts are names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Repository {
    /// As in `docker.io/library/app`, without a tag.
    meanings: Vec<String>,
}

impl Repository {
    /// The repository `name` of the registry `ns`, which is absent where none was said.
    ///
    /// # Errors
    /// [`Refusal::InvalidName`].
    pub(crate) fn parse(name: &str, ns: Option<&str>) -> Result<Self, Refusal> {
        let allowed = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte)
        };
        if MAX_NAME < name.len() || !name.bytes().all(allowed) {
            return Err(Refusal::InvalidName);
        }
        let texts = match ns {
            Some(ns) if ns.contains(['/', '@']) => return Err(Refusal::InvalidName),
            Some(ns) => vec![format!("{ns}/{name}")],
            None => std::iter::once(name.to_owned()).chain(with_port(name)).collect(),
        };
        let references = texts.iter().filter_map(|text| text.parse::<Reference>().ok());
        let meanings: Vec<_> = references.map(|reference| whole(&reference)).collect();
        if meanings.is_empty() { Err(Refusal::InvalidName) } else { Ok(Self { meanings }) }
    }

    /// The references of a tag (`:1`) or digest (`@sha256:…`) that it may mean, the first first.
    pub(super) fn references(&self, suffix: &str) -> Vec<Reference> {
        let texts = self.meanings.iter().map(|meaning| format!("{meaning}{suffix}"));
        texts.filter_map(|text| text.parse().ok()).collect()
    }

    /// Whether `reference` is a name in it.
    pub(super) fn has(&self, reference: &Reference) -> bool {
        self.meanings.contains(&whole(reference))
    }
}

/// A reference without its tag and digest.
fn whole(reference: &Reference) -> String {
    format!("{}/{}", reference.domain(), reference.path())
}

/// `registry_5000/app` as `registry:5000/app`; `None` where it does not end in a port.
fn with_port(name: &str) -> Option<String> {
    let (domain, path) = name.split_once('/')?;
    let (host, port) = domain.rsplit_once('_')?;
    let is_port = port.parse::<u16>().is_ok() && !host.is_empty() && !host.contains('_');
    is_port.then(|| format!("{host}:{port}/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_what_the_table_says() {
        let table: &[(&str, Option<&str>, &[&str])] = &[
            ("app", None, &["docker.io/library/app"]),
            ("library/app", None, &["docker.io/library/app"]),
            ("library/app", Some("docker.io"), &["docker.io/library/app"]),
            ("team/app", None, &["docker.io/team/app"]),
            ("team/app", Some("quay.io"), &["quay.io/team/app"]),
            ("app", Some("localhost:5000"), &["localhost:5000/app"]),
            ("quay.io/team/app", None, &["quay.io/team/app"]),
            ("docker.io/library/app", None, &["docker.io/library/app"]),
            ("localhost/app", None, &["localhost/app"]),
            ("manifests/blobs", None, &["docker.io/manifests/blobs"]),
            ("a/b/c/d__e/f--g", None, &["docker.io/a/b/c/d__e/f--g"]),
            ("reg_5000/app", None, &["docker.io/reg_5000/app", "reg:5000/app"]),
            // No host has an underscore in its name, so this has one meaning.
            ("10.0.0.1_80/a/b", None, &["10.0.0.1:80/a/b"]),
        ];
        for (name, ns, expected) in table {
            let repository = Repository::parse(name, *ns).unwrap();
            assert_eq!(repository.meanings, *expected, "{name} {ns:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a/".repeat(150) + "a";
        let hex = "a".repeat(64);
        let names = [
            "", "/", "a/", "/a", "a//b", "A", "a/B", "..", "../a", "a/../b", "a/./b", "a:1", "a@b",
            "%61", "a%2fb", "a b", "a\\b", ".a", "a-", "a___b", "ü", "a\0", "[::1]/a", &long, &hex,
        ];
        for name in names {
            assert_eq!(Repository::parse(name, None), Err(Refusal::InvalidName), "{name:?}");
        }
        for ns in ["", "quay.io/x", "a@b", "..", "-a.b", "a b", "x\ny"] {
            assert_eq!(Repository::parse("app", Some(ns)), Err(Refusal::InvalidName), "{ns:?}");
        }
    }
}
