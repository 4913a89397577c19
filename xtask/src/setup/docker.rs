//! The docker client, through which set-up talks to engines.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::command::{bound, command_at, find, find_all, run, succeeds};
use super::files::remove;
use super::machine::RECIPE_LABEL;
use super::state::State;

/// Timeout for an engine's version, in seconds.
const ANSWER_SECONDS: &str = "10";

/// An engine that answers, with a client program that it accepts.
#[derive(Clone, Debug)]
pub(super) struct Docker {
    host: String,
    program: PathBuf,
    version: String,
}

impl Docker {
    /// Asks the engine at `host` for its version, with each client on the machine in turn. A client may
    /// be too new for an old engine, and a machine may have several.
    ///
    /// # Errors
    /// The machine has no client, or none gets an answer.
    pub(super) fn connect(host: &str) -> Result<Self> {
        let mut last = None;
        for program in find_all("docker") {
            match version(&program, host) {
                Ok(version) => return Ok(Self { host: host.to_owned(), program, version }),
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => bail!("the program `docker` is not installed"),
        }
    }

    /// The engine's address, such as `unix:///…`.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The engine's version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// A client command with `args`.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        let mut command = command_at(&self.program);
        aim(&mut command, &self.host).args(args);
        command
    }

    /// A client command that is killed when this process dies, for builds and imports.
    ///
    /// # Errors
    /// The machine has no `setpriv`.
    pub(super) fn bound(&self, args: &[&str]) -> Result<Command> {
        let mut command = bound(&self.program)?;
        aim(&mut command, &self.host).args(args);
        Ok(command)
    }

    /// Runs the client with `args`, and returns its output.
    ///
    /// # Errors
    /// The client or the engine fails.
    pub(super) fn run(&self, args: &[&str]) -> Result<String> {
        run(&mut self.command(args))
    }

    /// The output of `docker image inspect` by `template`; `None` without such an image.
    pub(super) fn inspect_image(&self, reference: &str, template: &str) -> Option<String> {
        let args = ["image", "inspect", "--format", template, reference];
        self.run(&args).ok()
    }

    /// Reports whether the image `reference` exists and was made from the recipe with this fingerprint.
    pub(super) fn has_image(&self, reference: &str, recipe: &str) -> bool {
        let template = format!("{{{{index .Config.Labels \"{RECIPE_LABEL}\"}}}}");
        self.inspect_image(reference, &template).as_deref() == Some(recipe)
    }

    /// Pulls the image `reference`; reports whether that succeeds within five minutes.
    pub(super) fn can_pull(&self, reference: &str) -> bool {
        let Ok(mut command) = super::command::command("timeout") else { return false };
        command.arg("300").arg(&self.program).args(["pull", "--quiet", reference]);
        succeeds(aim(&mut command, &self.host))
    }

    /// Builds `tag` from a context folder that `fill` writes. Context and log are called `name` in the
    /// state's folder for builds, and stay there if the build fails.
    ///
    /// # Errors
    /// `fill` fails, or the build fails; the message quotes the end of the log.
    pub(super) fn build(
        &self,
        state: &State,
        name: &str,
        tag: &str,
        recipe: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let context = state.build().join(format!("{name}.context"));
        let log = state.build().join(format!("{name}.log"));
        remove(&context)?;
        fill(&context)?;
        self.build_from(tag, recipe, &context, &log)?;
        remove(&context)?;
        remove(&log)
    }

    /// Builds with the classic builder, which needs no plug-in, on the host's network, which needs no
    /// NAT and works with a resolver on a loopback address.
    fn build_from(&self, tag: &str, recipe: &str, context: &Path, log: &Path) -> Result<()> {
        let label = format!("--label={RECIPE_LABEL}={recipe}");
        let mut command = self.bound(&["build", "--network=host", "--force-rm", "--pull=false"])?;
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if std::env::var_os(name).is_some() {
                command.args(["--build-arg", name]);
            }
        }
        command.args([label.as_str(), "--tag", tag]).arg(context);
        super::command::run_logged(&mut command, log).with_context(|| format!("building {tag}"))
    }
}

/// Makes a client command use the engine `host`, whatever the environment says.
fn aim<'a>(command: &'a mut Command, host: &str) -> &'a mut Command {
    for name in [
        "DOCKER_CONTEXT",
        "DOCKER_TLS",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "DOCKER_API_VERSION",
    ] {
        command.env_remove(name);
    }
    command.env("DOCKER_HOST", host).env("DOCKER_BUILDKIT", "0").env("DOCKER_CLI_HINTS", "false")
}

fn version(program: &Path, host: &str) -> Result<String> {
    let mut command = match find("timeout") {
        Some(timeout) => {
            let mut command = command_at(&timeout);
            command.arg(ANSWER_SECONDS).arg(program);
            command
        }
        None => command_at(program),
    };
    let version =
        run(aim(&mut command, host).args(["version", "--format", "{{.Server.Version}}"]))?;
    if version.is_empty() {
        bail!("the engine at {host} reports no version");
    }
    Ok(version)
}
