//! The engine: the one that the machine has, else a private one that outlives the command.
//!
//! ```text
//! DOCKER_HOST answers ──────────────────────────────┐
//! a private engine was made before ── (start) ──┐   ├─► somebody else's: labelled objects only
//! the default socket answers ───────────────────┼───┘
//! none ── packages ── start ────────────────────┴─────► private: all in the state folder
//! ```
//! A private engine that is there stays the one in use, also when the machine gets another: images
//! and ranges of the last command are in it.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::apart;
use super::command::{command, find, log_tail};
use super::docker::Docker;
use super::network::{self, Network};
use super::packages;
use super::state::{State, write_whole};
use super::step::{say, step};

/// Where an engine listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// How long a private engine may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at an engine that starts or stops.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Size at which the private engine's log is begun anew, in bytes.
const MAX_LOG: u64 = 16 << 20;

/// The engine in use.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    /// Whether it is ours alone.
    pub(super) private: bool,
}

/// Finds the engine to use, or starts a private one.
///
/// # Errors
/// When none answers and none can be started: what is missing, or the end of the engine's log.
pub(super) fn ensure(state: &State) -> Result<Engine> {
    step("engine", || {
        let engine = find_or_start(state)?;
        if !engine.private {
            state.note("hosts", engine.docker.host())?;
        }
        let whose = if engine.private { "private" } else { "already there" };
        let line = format!("{whose}, {} at {}", engine.docker.version(), engine.docker.host());
        Ok((engine, line))
    })
}

fn find_or_start(state: &State) -> Result<Engine> {
    let own_host = private_host(state);
    if let Some(host) = named_host()?.filter(|host| *host != own_host) {
        packages::ensure(state, packages::CLIENT)?;
        match Docker::connect(&host) {
            Ok(docker) => return Ok(Engine { docker, private: false }),
            Err(error) => say(&format!(
                "the engine at DOCKER_HOST={host} does not answer, looking for another: {error:#}"
            )),
        }
    }
    let was_made = state.engine_data().exists();
    if was_made
        && running(state).is_some()
        && let Ok(docker) = Docker::connect(&own_host)
    {
        return Ok(Engine { docker, private: true });
    }
    if !was_made && let Some(docker) = default_engine(state)? {
        return Ok(Engine { docker, private: false });
    }
    packages::ensure(state, &[packages::ENGINE, packages::IMAGES].concat())?;
    // Where an init system runs, the package has just started the machine's own engine.
    if !was_made && let Some(docker) = default_engine(state)? {
        return Ok(Engine { docker, private: false });
    }
    start(state).context("starting a private engine")
}

/// The engine that [`ensure`] would find at once, as `unix:///…`; starts and installs nothing.
/// `None` when none takes connections.
///
/// # Errors
/// When `DOCKER_HOST` names no socket of this machine.
pub(super) fn present(state: &State) -> Result<Option<String>> {
    let listens = |host: &str| {
        let socket = host.strip_prefix("unix://").unwrap_or_default();
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    };
    if let Some(host) = named_host()?.filter(|host| listens(host)) {
        return Ok(Some(host));
    }
    let host = match state.engine_data().exists() {
        true => private_host(state),
        false => format!("unix://{DEFAULT_SOCKET}"),
    };
    Ok(listens(&host).then_some(host))
}

/// The engine that `DOCKER_HOST` names, or `None` when it is unset.
fn named_host() -> Result<Option<String>> {
    let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) else {
        return Ok(None);
    };
    if !host.starts_with("unix:///") {
        bail!(
            "DOCKER_HOST={host} is not on this machine, but ranges mount folders of this machine: \
             name a unix:// socket, or unset DOCKER_HOST for an engine of our own"
        );
    }
    Ok(Some(host))
}

fn default_engine(state: &State) -> Result<Option<Docker>> {
    // Without a listener there is nothing to ask, and no client needed to learn it.
    if std::os::unix::net::UnixStream::connect(DEFAULT_SOCKET).is_err() {
        return Ok(None);
    }
    packages::ensure(state, packages::CLIENT)?;
    Ok(Docker::connect(&format!("unix://{DEFAULT_SOCKET}")).ok())
}

fn private_host(state: &State) -> String {
    format!("unix://{}", state.engine_socket().display())
}

fn config_file(state: &State) -> std::path::PathBuf {
    state.engine().join("daemon.json")
}

fn pid_file(state: &State) -> std::path::PathBuf {
    state.engine().join("docker.pid")
}

/// The process ID of our engine if it runs; a pid file alone proves nothing.
pub(super) fn running(state: &State) -> Option<i32> {
    let pid = pid_in(&pid_file(state))?;
    runs_with(pid, "dockerd", &config_file(state)).then_some(pid)
}

/// The process ID of the containerd that our engine started, if it runs.
pub(super) fn running_containerd(state: &State) -> Option<i32> {
    let folder = state.engine_exec().join("containerd");
    let pid = pid_in(&folder.join("containerd.pid"))?;
    runs_with(pid, "containerd", &folder).then_some(pid)
}

/// The process ID that a pid file holds.
pub(super) fn pid_in(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Whether `pid` is a process of `program` that was started on something in `place`.
fn runs_with(pid: i32, program: &str, place: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    is_command_of(&words, program, &place.to_string_lossy())
}

/// Whether the NUL-separated `words` of a process call `program` with an argument that names `place`.
fn is_command_of(words: &[u8], program: &str, place: &str) -> bool {
    let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let is_program = words.next().is_some_and(|word| word.rsplit('/').next() == Some(program));
    is_program && words.any(|word| word.contains(place))
}

fn start(state: &State) -> Result<Engine> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "only root can run an engine; or point DOCKER_HOST at the unix:// socket of one that you may use"
        );
    }
    let host = private_host(state);
    if running(state).is_none() {
        clear_stale(state)?;
        apart::keep(&state.engine_data().join("volumes"))?;
        let network = network::ensure(state)?;
        write_whole(&config_file(state), &serde_json::to_vec_pretty(&config(state, &network))?)?;
        spawn(state)?;
    }
    let started = Instant::now();
    loop {
        if let Ok(docker) = Docker::connect(&host) {
            return Ok(Engine { docker, private: true });
        }
        // The pid file appears only some way into the start: its absence means nothing yet.
        let is_gone = running(state).is_none() && Duration::from_secs(5) < started.elapsed();
        if is_gone || START_LIMIT < started.elapsed() {
            bail!("it does not answer at {host}; {}", log_tail(&state.engine_log()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Removes what a killed engine left that would stop the next one.
fn clear_stale(state: &State) -> Result<()> {
    // An engine refuses to start while the number in its pid file is anybody's process.
    remove_file(&pid_file(state))?;
    remove_file(&state.engine_socket())?;
    // A containerd that outlived its engine is taken over by the next; a stale number is not.
    if running_containerd(state).is_none() {
        remove_file(&state.engine_exec().join("containerd/containerd.pid"))?;
    }
    // exec-root is meant for a file system that a boot empties; ours is not one.
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let seen = state.engine().join("boot-id");
    if fs::read_to_string(&seen).is_ok_and(|seen| seen != boot_id) && state.engine_exec().exists() {
        fs::remove_dir_all(state.engine_exec())
            .context("emptying the engine's exec-root after a boot")?;
    }
    write_whole(&seen, boot_id.as_bytes())
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What the private engine is told; nothing of the machine's own `/etc/docker` is read.
fn config(state: &State, network: &Network) -> serde_json::Value {
    json!({
        "hosts": [private_host(state)],
        "data-root": state.engine_data(),
        "exec-root": state.engine_exec(),
        "pidfile": pid_file(state),
        "labels": [super::LABEL],
        // The store is ours to say: its default has changed between releases.
        "features": {"containerd-snapshotter": false},
        "bridge": network.bridge_or_none(),
        "mtu": network.mtu(),
        "default-address-pools": [{"base": network.pool(), "size": 24}],
        // Two engines that both write the chain DOCKER undo each other's rules: ours writes none, and
        // `network` adds the few that are needed, under its own name.
        "iptables": false,
        "ip-masq": false,
        "ip-forward": false,
    })
}

fn spawn(state: &State) -> Result<()> {
    let log = state.engine_log();
    let is_long = log.metadata().is_ok_and(|meta| MAX_LOG < meta.len());
    let file = fs::File::options().create(true).append(true).open(&log);
    let file = file.with_context(|| format!("opening {}", log.display()))?;
    if is_long {
        file.set_len(0).with_context(|| format!("emptying {}", log.display()))?;
    }
    let errors = file.try_clone().context("opening the engine's log")?;
    let dockerd = find("dockerd").context("the program `dockerd` is not on this machine")?;
    // A session of its own: no terminal's hang-up or interrupt reaches it.
    let mut setsid = command("setsid")?;
    setsid.arg("--fork").arg(dockerd).arg("--config-file").arg(config_file(state));
    // A containerd of the machine may be found and used: keep out of its engine's namespaces. (Flags,
    // since the configuration file's name of the second is refused by engine 20.10.)
    setsid.args([
        "--containerd-namespace=longshore",
        "--containerd-plugins-namespace=plugins.longshore",
    ]);
    let status = setsid.stdin(Stdio::null()).stdout(file).stderr(errors).status();
    match status.context("starting setsid")?.success() {
        true => Ok(()),
        false => bail!("setsid failed; {}", log_tail(&log)),
    }
}

/// Asks the process `pid` to end, kills it when it has not after `limit`, and waits until it is gone.
///
/// # Errors
/// When it survives even that.
pub(super) fn end(pid: i32, limit: Duration) -> Result<()> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    for (signal, limit) in [(Signal::TERM, limit), (Signal::KILL, Duration::from_secs(10))] {
        // A failure means that it is gone already, which the look below finds out.
        let _ = kill_process(process, signal);
        let asked = Instant::now();
        while asked.elapsed() < limit {
            if is_gone(pid) {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
    bail!("process {pid} does not end")
}

/// Whether no process `pid` does anything any more; one that only waits to be reaped does not.
fn is_gone(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.lines().any(|line| line.starts_with("State:\tZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_program_on_our_files_is_ours() {
        let ours = "/s/engine/daemon.json";
        for (words, expected) in [
            ("/usr/sbin/dockerd\0--config-file\0/s/engine/daemon.json\0", true),
            ("dockerd\0--config-file=/s/engine/daemon.json\0", true),
            ("dockerd\0--config-file\0/etc/docker/daemon.json\0", false),
            ("vi\0/s/engine/daemon.json\0", false),
            ("dockerd\0", false),
            ("", false),
        ] {
            assert_eq!(is_command_of(words.as_bytes(), "dockerd", ours), expected, "{words:?}");
        }
    }

    #[test]
    fn a_pid_file_without_a_sane_number_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        assert_eq!(pid_in(&path), None);
        for (text, expected) in
            [("", None), ("0", None), ("1", None), ("-5", None), ("x", None), ("42\n", Some(42))]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(pid_in(&path), expected, "{text:?}");
        }
    }
}
