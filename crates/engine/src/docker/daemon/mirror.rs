//! The command line of a dockerd that asks a registry on loopback first: one more argument, where
//! dockerd is what starts and the user chose no mirrors.
//!
//! The address is tried before the engine starts: a mirror that is another program's server would be
//! asked for everything. No file of the engine is written. A command that starts an engine in a way
//! unknown here stays as it is; its user adds `"registry-mirrors": ["http://127.0.0.1:5055"]` to
//! daemon.json.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::registry::Loopback;

/// The engine.
const DOCKERD: &str = "dockerd";

/// What starts a program that is given after it.
const WRAPPERS: [&str; 4] = ["docker-init", "tini", "dumb-init", "dockerd-entrypoint.sh"];

/// What starts dockerd by itself when it is given flags or nothing, and the file that it reads its
/// configuration from.
const ENTRY_POINTS: [(&str, &str); 2] =
    [("dockerd-entrypoint.sh", DAEMON_JSON), ("range-engine", "/etc/longshore/daemon.json")];

/// Where dockerd reads its configuration unless it is told otherwise.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// The flag, which dockerd takes once for each mirror.
const MIRROR: &str = "--registry-mirror";

/// `command` with the registry at `address` as a mirror; unchanged where dockerd takes none, or where
/// no registry can listen there.
#[must_use]
pub fn with_mirror(mut command: Vec<OsString>, address: Loopback) -> Vec<OsString> {
    if let Some(reason) = reason_against(&command, |path| std::fs::read(path).ok()) {
        tracing::info!(reason, "the engine gets no mirror from here");
        return command;
    }
    match address.try_out() {
        Ok(tried) if tried == address => command.push(format!("{MIRROR}=http://{address}").into()),
        Ok(_) => tracing::warn!(
            %address,
            "the engine is started without the range's registry as its mirror, since the port is \
             not known yet; choose one with --registry"
        ),
        Err(error) => tracing::warn!(
            %address, %error,
            "the engine is started without the range's registry as its mirror, which cannot listen; \
             free the address or choose another with --registry, then start the range again"
        ),
    }
    command
}

/// Why the engine is started as it was said; `None` where it can have one more argument. `read`
/// gives a file's content, and `None` where there is none.
fn reason_against(
    command: &[OsString],
    read: impl Fn(&Path) -> Option<Vec<u8>>,
) -> Option<&'static str> {
    let Some((flags, usual)) = flags(command) else { return Some("it is not started by dockerd") };
    if flags.iter().any(|flag| begins(flag, MIRROR)) {
        return Some("it is told mirrors of its own");
    }
    let config = config_file(flags).unwrap_or_else(|| usual.into());
    // dockerd does not start with the same setting in both places.
    let mirrors = read(&config).is_some_and(|text| {
        let config = serde_json::from_slice::<serde_json::Value>(&text);
        config.map_or(true, |config| config.get("registry-mirrors").is_some())
    });
    mirrors.then_some("its daemon.json has mirrors of its own, or cannot be read")
}

/// The flags that dockerd is started with, and where it reads its configuration unless they say
/// otherwise; `None` where it is not known to be what is started.
fn flags(command: &[OsString]) -> Option<(&[OsString], &'static str)> {
    for (position, word) in command.iter().enumerate() {
        let rest = &command[position + 1..];
        let name = Path::new(word).file_name().unwrap_or(OsStr::new(""));
        if name == DOCKERD {
            return Some((rest, DAEMON_JSON));
        }
        if let Some((_, usual)) = ENTRY_POINTS.iter().find(|(known, _)| name == *known)
            && rest.first().is_none_or(|next| begins(next, "-"))
        {
            return Some((rest, usual));
        }
        let is_flag = 0 < position && begins(word, "-");
        let passes_on = is_flag || WRAPPERS.iter().any(|known| name == *known);
        if !passes_on {
            return None;
        }
    }
    None
}

/// The file that a flag names.
fn config_file(flags: &[OsString]) -> Option<PathBuf> {
    const FLAG: &str = "--config-file";
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let text = flag.to_str().unwrap_or_default();
        match text.strip_prefix(FLAG) {
            Some("") => return flags.next().map(PathBuf::from),
            Some(value) if value.starts_with('=') => return Some(value[1..].into()),
            _ => {}
        }
    }
    None
}

fn begins(word: &OsStr, start: &str) -> bool {
    word.as_encoded_bytes().starts_with(start.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Whether a command gets a mirror, when one file is there.
    fn gets(command: &str, file: (&str, &str)) -> bool {
        let words: Vec<OsString> = command.split_whitespace().map(OsString::from).collect();
        let read = |path: &Path| (path == Path::new(file.0)).then(|| file.1.as_bytes().to_vec());
        reason_against(&words, read).is_none()
    }

    #[test]
    fn an_engine_gets_a_mirror_where_dockerd_takes_it() {
        let none = ("", "");
        for command in [
            "dockerd",
            "/usr/bin/dockerd --debug",
            "dockerd-entrypoint.sh",
            "/usr/local/bin/dockerd-entrypoint.sh --tls=false",
            "dockerd-entrypoint.sh dockerd --host unix:///x",
            "docker-init -- dockerd",
            "tini -g -- dockerd-entrypoint.sh dockerd",
            "/usr/local/bin/range-engine",
        ] {
            assert!(gets(command, none), "{command}");
        }
        for command in [
            "",
            "sh -c dockerd",
            "dockerd-entrypoint.sh sh",
            "range-engine sh dockerd",
            "podman dockerd",
            "-x dockerd",
            "dockerd-rootless.sh",
            "dockerd --registry-mirror=https://mirror.example",
            "dockerd --registry-mirror https://mirror.example",
        ] {
            assert!(!gets(command, none), "{command}");
        }
    }

    #[test]
    fn mirrors_in_the_engines_own_configuration_are_left_alone() {
        let own = r#"{"registry-mirrors": []}"#;
        let other = r#"{"insecure-registries": ["x"]}"#;
        for (command, file) in [
            ("dockerd", "/etc/docker/daemon.json"),
            ("dockerd-entrypoint.sh", "/etc/docker/daemon.json"),
            ("range-engine", "/etc/longshore/daemon.json"),
            ("dockerd --config-file /c.json", "/c.json"),
            ("dockerd --debug --config-file=/c.json", "/c.json"),
        ] {
            assert!(!gets(command, (file, own)), "{command}");
            assert!(!gets(command, (file, "no JSON")), "{command}");
            assert!(gets(command, (file, other)), "{command}");
        }
        assert!(gets("dockerd --config-file /c.json", ("/etc/docker/daemon.json", own)));
    }

    #[test]
    fn the_mirror_is_the_registry_where_that_can_listen() {
        let with = |word: &str, address| with_mirror(vec![word.into()], address);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Loopback = taken.local_addr().unwrap().to_string().parse().unwrap();
        assert_eq!(with("range-engine", address), ["range-engine"], "somebody else is there");
        drop(taken);
        let mirror = format!("--registry-mirror=http://{address}");
        assert_eq!(with("range-engine", address), ["range-engine", &mirror]);
        let again = TcpListener::bind(address.to_string());
        assert!(again.is_ok(), "it is left free for the agent");
        assert_eq!(with("sh", address), ["sh"]);
        assert_eq!(with("range-engine", Loopback::port(0)), ["range-engine"], "nobody knows where");
    }
}
