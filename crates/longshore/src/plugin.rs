//! The same program as a plug-in of Docker's client, which finds it as `docker-longshore`.
//!
//! ```text
//!   docker-longshore docker-cli-plugin-metadata                  one JSON object
//!   docker-longshore [docker's flags] longshore range ls         `docker … longshore range ls`
//!   docker-longshore help longshore range                        `docker help longshore range`
//! ```
//! Docker's own flags that choose an engine have the same effect here as they have there.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::Result;
use process::exit::{Exit, Usage};
use process::output;
use serde_json::json;

use crate::site::Surroundings;

/// Name of the program by itself.
const ALONE: &str = "longshore";

/// Name of the program as a plug-in.
const AS_PLUGIN: &str = "docker longshore";

/// First word of Docker's question for the metadata.
const METADATA: &str = "docker-cli-plugin-metadata";

/// Docker's flags that take no value, and change nothing here.
const SWITCHES: [&str; 2] = ["-D", "--debug"];

/// Docker's flags for engines with certificates, which cannot be reached from here.
const CERTIFICATES: [&str; 5] = ["--tls", "--tlscacert", "--tlscert", "--tlskey", "--tlsverify"];

/// Request of a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// The plug-in's metadata.
    Metadata,
    /// A command.
    Command {
        /// Name of the program in its messages.
        program: &'static str,
        /// The command line without Docker's own words; the program's name is its first word.
        arguments: Vec<OsString>,
    },
}

/// Reads a command line. As a plug-in, Docker's flags that choose an engine change the variables of
/// `surroundings` that they stand for.
///
/// # Errors
/// [`Usage`] for flags of Docker's client that cannot be honoured.
pub fn called(arguments: &[OsString], surroundings: &mut Surroundings) -> Result<Call> {
    let (name, words) = arguments
        .split_first()
        .map_or((None, &[][..]), |(name, words)| (Path::new(name).file_name(), words));
    let is_plugin = name.is_some_and(|name| name.to_string_lossy().starts_with("docker-"));
    if !is_plugin {
        return Ok(Call::Command { program: ALONE, arguments: arguments.to_vec() });
    }
    if words.first().is_some_and(|word| word == METADATA) {
        return Ok(Call::Metadata);
    }
    let words = without_dockers(words, surroundings)?;
    let arguments = std::iter::once(OsString::from(AS_PLUGIN)).chain(words).collect();
    Ok(Call::Command { program: AS_PLUGIN, arguments })
}

/// Prints the metadata.
///
/// # Errors
/// When stdout cannot be written.
pub fn print_metadata() -> Result<Exit> {
    let metadata = json!({
        "SchemaVersion": "0.1.0",
        "Vendor": "Longshore",
        "Version": env!("CARGO_PKG_VERSION"),
        "ShortDescription": "Docker-in-Docker ranges with this host's images",
    });
    output::print_json_lines([metadata])?;
    Ok(Exit::Ok)
}

/// The words after the plug-in's own name.
fn without_dockers(words: &[OsString], surroundings: &mut Surroundings) -> Result<Vec<OsString>> {
    let mut words = words.iter();
    let mut is_help = false;
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let (flag, joined) = match text.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (text.as_ref(), None),
        };
        if word == ALONE {
            let help = is_help.then(|| OsString::from("--help"));
            return Ok(words.cloned().chain(help).collect());
        }
        let mut value = || joined.clone().or_else(|| next_text(&mut words)).unwrap_or_default();
        match flag {
            "help" => is_help = true,
            "-H" | "--host" => {
                let host = value();
                surroundings.variables.insert("DOCKER_HOST".to_owned(), host);
            }
            "-c" | "--context" => {
                // Over DOCKER_HOST, as in Docker's client.
                let context = value();
                surroundings.variables.remove("DOCKER_HOST");
                surroundings.variables.insert("DOCKER_CONTEXT".to_owned(), context);
            }
            "--config" => {
                let folder = value();
                surroundings.variables.insert("DOCKER_CONFIG".to_owned(), folder);
            }
            "-l" | "--log-level" => drop(value()),
            flag if SWITCHES.contains(&flag) => {}
            flag if CERTIFICATES.contains(&flag) => {
                let text = format!(
                    "docker's flag {flag} has no meaning here: Longshore reaches engines by socket or \
                     plain TCP; name one with `docker --host ADDRESS longshore …`"
                );
                return Err(Usage(text).into());
            }
            // Run by hand, without the word that Docker's client puts first.
            _ => return Ok(std::iter::once(word).chain(words).cloned().collect()),
        }
    }
    Ok(Vec::new())
}

fn next_text<'a>(words: &mut impl Iterator<Item = &'a OsString>) -> Option<String> {
    words.next().map(OsString::as_os_str).map(OsStr::to_string_lossy).map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(words: &[&str]) -> Result<(Call, Surroundings)> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut surroundings = Surroundings::default();
        surroundings.variables.insert("DOCKER_HOST".to_owned(), "unix:///before".to_owned());
        let call = called(&words, &mut surroundings)?;
        Ok((call, surroundings))
    }

    #[test]
    fn a_command_line_is_taken_as_docker_gives_it_to_a_plugin() {
        let cases: &[(&[&str], &str, &[&str])] = &[
            (&["longshore", "range", "ls"], ALONE, &["longshore", "range", "ls"]),
            (&["/bin/longshore"], ALONE, &["/bin/longshore"]),
            (&["/p/docker-longshore", "longshore", "range", "ls"], AS_PLUGIN, &["range", "ls"]),
            (&["docker-longshore", "-D", "-l", "info", "longshore", "-V"], AS_PLUGIN, &["-V"]),
            (&["docker-longshore", "help", "longshore", "range"], AS_PLUGIN, &["range", "--help"]),
            (&["docker-longshore", "range", "ls"], AS_PLUGIN, &["range", "ls"]),
            (&["docker-longshore"], AS_PLUGIN, &[]),
            (
                &["docker-longshore", "longshore", "exec", "longshore"],
                AS_PLUGIN,
                &["exec", "longshore"],
            ),
        ];
        for (given, program, expected) in cases {
            let (call, _) = call(given).unwrap();
            let Call::Command { program: found, arguments } = call else {
                panic!("{given:?} asked for metadata")
            };
            let begin =
                if *program == AS_PLUGIN { vec![OsString::from(AS_PLUGIN)] } else { Vec::new() };
            let expected: Vec<OsString> =
                begin.into_iter().chain(expected.iter().map(OsString::from)).collect();
            assert_eq!((found, arguments), (*program, expected), "{given:?}");
        }
        let (call, _) = call(&["docker-longshore", METADATA]).unwrap();
        assert_eq!(call, Call::Metadata);
    }

    #[test]
    fn flags_of_docker_that_choose_an_engine_choose_it_here() {
        let cases: &[(&[&str], &str, Option<&str>)] = &[
            (&["-H", "unix:///x"], "DOCKER_HOST", Some("unix:///x")),
            (&["--host=unix:///x"], "DOCKER_HOST", Some("unix:///x")),
            (&["--context", "far"], "DOCKER_CONTEXT", Some("far")),
            (&["-c=far"], "DOCKER_HOST", None),
            (&["--config", "/c"], "DOCKER_CONFIG", Some("/c")),
        ];
        for (flags, variable, expected) in cases {
            let words = [&["docker-longshore"], *flags, &["longshore", "config"]].concat();
            let (_, surroundings) = call(&words).unwrap();
            assert_eq!(surroundings.variable(variable), *expected, "{flags:?}");
        }
        let error = call(&["docker-longshore", "--tlsverify", "longshore"]).unwrap_err();
        assert!(error.is::<Usage>(), "{error}");
    }
}
