//! Where images are, as a person writes it: an engine's socket, a folder, a file.
//!
//! | text | what is there |
//! |---|---|
//! | `unix:///var/run/docker.sock`, `/var/run/docker.sock` | a Docker engine behind a socket |
//! | `tcp://127.0.0.1:2375` | a Docker engine behind a port |
//! | `oci:/srv/images` | a folder of the OCI image layout |
//! | `docker-archive:/srv/images.tar` | what `docker save` wrote |
//! | `oci-archive:/srv/images.tar` | a tar file of an OCI image layout |
//!
//! The words before the colon are those of `containers-transports(5)`, as skopeo and podman take
//! them. Which kind of archive a file is shows in the file; both words mean the same here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest address in bytes: a path ends at 4096.
const MAX_TEXT: usize = 4200;

/// How much of a bad address an error repeats, in characters.
const MAX_SHOWN: usize = 200;

/// Where images come from or go to. Nothing was looked at yet: there need not be anything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Docker engine, as `unix:///path` or `tcp://host:port`.
    Docker(String),
    /// A folder of the OCI image layout.
    OciLayout(PathBuf),
    /// A tar file: a `docker save` or an OCI image layout.
    Archive(PathBuf),
}

/// A text that tells no such place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} tells no place of images: {reason}; examples: unix:///var/run/docker.sock, \
     tcp://127.0.0.1:2375, oci:/srv/images, docker-archive:/srv/images.tar, \
     oci-archive:/srv/images.tar"
)]
pub struct InvalidAddress {
    /// What was to be parsed, cut to a length that is safe to print.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        parse(text).map_err(|reason| InvalidAddress {
            text: text.chars().take(MAX_SHOWN).collect(),
            reason,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(address) => f.write_str(address),
            Self::OciLayout(path) => write!(f, "oci:{}", path.display()),
            Self::Archive(path) => write!(f, "archive:{}", path.display()),
        }
    }
}

fn parse(text: &str) -> Result<Address, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if MAX_TEXT < text.len() || text.contains('\0') {
        return Err("no path is like that");
    }
    if text.starts_with('/') {
        return Ok(Address::Docker(format!("unix://{text}")));
    }
    let Some((kind, rest)) = text.split_once(':') else {
        return Err("it does not say what kind of place it is");
    };
    let path = || match rest {
        "" => Err("there is no path after the colon"),
        path => Ok(PathBuf::from(path)),
    };
    match kind {
        "unix" if rest.starts_with("///") => Ok(Address::Docker(text.to_owned())),
        "unix" => Err("the socket's path is not absolute"),
        "tcp" => tcp(rest),
        "oci" => path().map(Address::OciLayout),
        // `archive` is how an address is displayed; it can be read again.
        "docker-archive" | "oci-archive" | "archive" => path().map(Address::Archive),
        _ => Err("there is no such kind of place"),
    }
}

fn tcp(rest: &str) -> Result<Address, &'static str> {
    let authority = rest.strip_prefix("//").map(|rest| rest.trim_end_matches('/'));
    match authority.and_then(|authority| authority.rsplit_once(':')) {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(Address::Docker(format!("tcp://{host}:{port}")))
        }
        _ => Err("a port needs tcp://host:port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_place_parses_and_is_displayed_so_that_it_parses_again() {
        let docker = |text: &str| Address::Docker(text.to_owned());
        for (text, expected) in [
            ("unix:///var/run/docker.sock", docker("unix:///var/run/docker.sock")),
            ("/var/run/docker.sock", docker("unix:///var/run/docker.sock")),
            ("tcp://127.0.0.1:2375", docker("tcp://127.0.0.1:2375")),
            ("tcp://[::1]:2375/", docker("tcp://[::1]:2375")),
            ("oci:/srv/images", Address::OciLayout("/srv/images".into())),
            ("oci:with:colon", Address::OciLayout("with:colon".into())),
            ("docker-archive:/a.tar", Address::Archive("/a.tar".into())),
            ("oci-archive:/a.tar", Address::Archive("/a.tar".into())),
        ] {
            let parsed: Address = text.parse().unwrap();
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_tells_no_place_is_refused_with_examples() {
        let long = format!("oci:/{}", "x".repeat(5000));
        for text in [
            "",
            "docker",
            "images.tar",
            "./images",
            "unix://run/docker.sock",
            "unix:",
            "tcp://host",
            "tcp://:1",
            "tcp://host:99999",
            "tcp:host:1",
            "oci:",
            "docker-archive:",
            "http://a:1",
            "oci:/a\0b",
            &long,
        ] {
            let error = text.parse::<Address>().unwrap_err();
            let message = error.to_string();
            assert!(message.contains("oci:/srv/images") && message.len() < 700, "{message}");
        }
    }
}
