//! The engine: the machine's own, or else a private one that outlives the command.
//!
//! ```text
//! DOCKER_HOST answers ──────────────────────────────┐
//! a private engine exists ── (start) ───────────┐   ├─► foreign: only labelled objects are ours
//! the default socket answers ───────────────────┼───┘
//! none ── packages ── start ────────────────────┴─────► private: everything in the state folder
//! ```
//! An existing private engine stays in use even if the machine gets another one, since it has the
//! images and ranges of earlier commands.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::command::{command, find, log_tail};
use super::docker::Docker;
use super::machine::LABEL;
use super::network::{self, Network};
use super::packages;
use super::state::{State, write_whole};
use super::step::{say, step};
use super::volumes;

/// The default socket of an engine.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Timeout for a private engine to answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Interval between checks of a starting or stopping engine.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Size in bytes at which the private engine's log is emptied.
const MAX_LOG: u64 = 16 << 20;

/// The engine in use.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    pub(super) docker: Docker,
    /// True for the private engine of this state folder.
    pub(super) private: bool,
}

/// Finds the engine to use, or starts a private one.
///
/// # Errors
/// No engine answers and none can be started. The message has what is missing, or the end of the
/// engine's log.
pub(super) fn ensure(state: &State) -> Result<Engine> {
    step("engine", || {
        let engine = find_or_start(state)?;
        if !engine.private {
            state.note("hosts", engine.docker.host())?;
        }
        let kind = if engine.private { "private" } else { "already there" };
        let line = format!("{kind}, {} at {}", engine.docker.version(), engine.docker.host());
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
                "the engine at DOCKER_HOST={host} does not answer, trying others: {error:#}"
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
    // With an init system, the package has just started the machine's own engine.
    if !was_made && let Some(docker) = default_engine(state)? {
        return Ok(Engine { docker, private: false });
    }
    start(state).context("starting a private engine")
}

/// The address of the engine that [`ensure`] would find, without starting or installing anything;
/// `None` if no engine accepts connections.
///
/// # Errors
/// `DOCKER_HOST` is not a Unix socket.
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

/// The engine that `DOCKER_HOST` names, or `None` if it is unset.
fn named_host() -> Result<Option<String>> {
    let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) else {
        return Ok(None);
    };
    if !host.starts_with("unix:///") {
        bail!(
            "DOCKER_HOST={host} is not a socket of this machine, but ranges mount folders of this \
             machine: set it to a unix:// socket, or unset it to use a private engine"
        );
    }
    Ok(Some(host))
}

fn default_engine(state: &State) -> Result<Option<Docker>> {
    // This needs no client, so check it before installing one.
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

/// The process ID of the private engine if it runs, checked beyond its pid file.
pub(super) fn running(state: &State) -> Option<i32> {
    let pid = read_pid(&pid_file(state))?;
    runs_with(pid, "dockerd", &config_file(state)).then_some(pid)
}

/// The process ID of the private engine's containerd, if it runs.
pub(super) fn running_containerd(state: &State) -> Option<i32> {
    let folder = state.engine_exec().join("containerd");
    let pid = read_pid(&folder.join("containerd.pid"))?;
    runs_with(pid, "containerd", &folder).then_some(pid)
}

/// The process ID in a pid file.
pub(super) fn read_pid(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Reports whether `pid` runs `program` with an argument that contains `place`.
fn runs_with(pid: i32, program: &str, place: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    is_command_of(&words, program, &place.to_string_lossy())
}

/// Reports whether a NUL-separated command line runs `program` with an argument that contains `place`.
fn is_command_of(words: &[u8], program: &str, place: &str) -> bool {
    let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let is_program = words.next().is_some_and(|word| word.rsplit('/').next() == Some(program));
    is_program && words.any(|word| word.contains(place))
}

fn start(state: &State) -> Result<Engine> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "only root can run an engine: run this as root, or set DOCKER_HOST to the unix:// socket \
             of an engine that you may use"
        );
    }
    let host = private_host(state);
    if running(state).is_none() {
        clear_stale(state)?;
        volumes::spread(&state.engine_data().join("volumes"))?;
        let network = network::ensure(state)?;
        write_whole(&config_file(state), &serde_json::to_vec_pretty(&config(state, &network))?)?;
        spawn(state)?;
    }
    let started = Instant::now();
    loop {
        if let Ok(docker) = Docker::connect(&host) {
            return Ok(Engine { docker, private: true });
        }
        // The pid file appears late in the start, so its absence means nothing at first.
        let is_gone = running(state).is_none() && Duration::from_secs(5) < started.elapsed();
        if is_gone || START_TIMEOUT < started.elapsed() {
            bail!("the engine does not answer at {host}; {}", log_tail(&state.engine_log()));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Removes files of a killed engine that would prevent a start.
fn clear_stale(state: &State) -> Result<()> {
    // An engine refuses to start while the process ID in its pid file belongs to any process.
    remove_file(&pid_file(state))?;
    remove_file(&state.engine_socket())?;
    // The next engine takes over a running containerd, but not a stale process ID.
    if running_containerd(state).is_none() {
        remove_file(&state.engine_exec().join("containerd/containerd.pid"))?;
    }
    // exec-root should be on a file system that a boot empties. Ours is not, so empty it here.
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

/// The private engine's configuration. It ignores the machine's `/etc/docker`.
fn config(state: &State, network: &Network) -> serde_json::Value {
    json!({
        "hosts": [private_host(state)],
        "data-root": state.engine_data(),
        "exec-root": state.engine_exec(),
        "pidfile": pid_file(state),
        "labels": [LABEL],
        // Set explicitly, since the default store has changed between releases.
        "features": {"containerd-snapshotter": false},
        "bridge": network.bridge_or_none(),
        "mtu": network.mtu(),
        "default-address-pools": [{"base": network.pool(), "size": 24}],
        // Two engines that write the chain DOCKER would undo each other's rules. This one writes none;
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
    let dockerd = find("dockerd").context("the program `dockerd` is not installed")?;
    // A separate session protects it from a terminal's hang-up or interrupt.
    let mut setsid = command("setsid")?;
    setsid.arg("--fork").arg(dockerd).arg("--config-file").arg(config_file(state));
    // The engine may use the machine's containerd, so it needs namespaces of its own. These are flags
    // because engine 20.10 refuses the second one in the configuration file.
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

/// Terminates the process `pid`, kills it after `limit`, and waits for its end.
///
/// # Errors
/// The process survives even that.
pub(super) fn terminate(pid: i32, limit: Duration) -> Result<()> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    for (signal, limit) in [(Signal::TERM, limit), (Signal::KILL, Duration::from_secs(10))] {
        // A failure means that it has ended already, which the check below confirms.
        let _ = kill_process(process, signal);
        let asked = Instant::now();
        while asked.elapsed() < limit {
            if is_gone(pid) {
                return Ok(());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
    bail!("process {pid} does not end, even after SIGKILL")
}

/// Reports whether the process `pid` has ended; a zombie counts as ended.
fn is_gone(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.lines().any(|line| line.starts_with("State:\tZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_engine_with_our_files_is_ours() {
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
    fn a_pid_file_needs_a_valid_process_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pid");
        assert_eq!(read_pid(&path), None);
        for (text, expected) in
            [("", None), ("0", None), ("1", None), ("-5", None), ("x", None), ("42\n", Some(42))]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(read_pid(&path), expected, "{text:?}");
        }
    }
}
