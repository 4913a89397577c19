//! Teardown: removes everything that xtask made on this machine, and nothing else.
//!
//! It follows the dependencies: detached agents, labelled objects in foreign engines, the private
//! engine with its network, the state folder. Missing objects are ignored, so a second call finishes a
//! killed one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::command::run;
use super::docker::Docker;
use super::engine::{read_pid, running, running_containerd, terminate};
use super::files::{mounts_under, remove};
use super::machine::{LABEL, RECIPE_LABEL};
use super::network;
use super::state::State;
use super::step::{say, step};

/// Timeout for an agent to end.
const AGENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout for the private engine to stop.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(30);

/// Prefix of the agents' program names.
const AGENT_PREFIX: &str = "longshore-";

/// Removes everything that xtask made on this machine.
///
/// # Errors
/// Something could not be removed; a second call continues from there.
pub(crate) fn teardown() -> Result<()> {
    let Some(state) = State::existing()? else {
        say("nothing to remove: this machine was not set up");
        return Ok(());
    };
    let _lock = state.lock()?;
    step("agents", || stop_agents(&state, "").map(|count| ((), format!("{count} stopped"))))?;
    for host in state.notes("hosts") {
        step(&format!("engine at {host}"), || Ok(((), clear_foreign(&state, &host)?)))?;
    }
    step("private engine", || Ok(((), stop_engine(&state)?)))?;
    let packages = state.notes("packages");
    step("state folder", || {
        remove_state(&state)?;
        Ok(((), format!("{} removed", state.root().display())))
    })?;
    if !packages.is_empty() {
        say(&format!(
            "installed packages stay, since other programs may use them by now: {}",
            packages.join(" ")
        ));
    }
    Ok(())
}

/// Stops the agents whose pid files in the run folder begin with `prefix`, and returns their number.
///
/// # Errors
/// An agent does not end.
pub(crate) fn stop_agents(state: &State, prefix: &str) -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(state.run()).context("reading the run folder")? {
        let path = entry.context("reading the run folder")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with(prefix) || !name.ends_with(".pid") {
            continue;
        }
        // Another process may have this ID by now, so check its program.
        if let Some(pid) = read_pid(&path).filter(|pid| is_agent(*pid)) {
            terminate(pid, AGENT_TIMEOUT)?;
            count += 1;
        }
        remove(&path)?;
    }
    Ok(count)
}

fn is_agent(pid: i32) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    program.file_name().is_some_and(|name| name.to_string_lossy().starts_with(AGENT_PREFIX))
}

/// Removes our objects from a foreign engine, and returns their numbers in words.
fn clear_foreign(state: &State, host: &str) -> Result<String> {
    let docker = match Docker::connect(host) {
        Ok(docker) => docker,
        Err(error) => {
            return Ok(format!("nothing removed, since it does not answer: {error:#}"));
        }
    };
    let filter = format!("label={LABEL}");
    let mut counts = Vec::new();
    // Objects of each kind are in use by those of the kinds before it.
    for (kind, list, remove) in [
        ("containers", &["ps", "--all", "--quiet"][..], &["rm", "--force", "--volumes"][..]),
        ("networks", &["network", "ls", "--quiet"], &["network", "rm"]),
        ("volumes", &["volume", "ls", "--quiet"], &["volume", "rm", "--force"]),
    ] {
        let listed = docker.run(&[list, &["--filter", &filter]].concat())?;
        let ids: Vec<&str> = listed.lines().collect();
        if !ids.is_empty() {
            docker.run(&[remove, &ids].concat())?;
        }
        counts.push(format!("{} {kind}", ids.len()));
    }
    let (removed, left) = clear_images(state, &docker)?;
    counts.push(format!("{removed} images"));
    let kept = if left.is_empty() {
        String::new()
    } else {
        format!("; in use by others: {}", left.join(", "))
    };
    Ok(format!("{} removed{kept}", counts.join(", ")))
}

/// Removes our names of our images, and unnamed images. Returns the number of removed names, and the
/// names that stay because other containers use them.
fn clear_images(state: &State, docker: &Docker) -> Result<(usize, Vec<String>)> {
    let by_label = |label: &str| format!("label={label}");
    let mut names = Vec::new();
    for label in [RECIPE_LABEL, LABEL] {
        let format =
            ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &by_label(label)];
        let listed = docker.run(&format)?;
        names.extend(listed.lines().filter(|name| is_our_name(name)).map(str::to_owned));
    }
    let host = docker.host();
    let pulled = state.notes("pulled").into_iter().filter_map(|line| {
        line.split_once(' ').filter(|(from, _)| *from == host).map(|(_, image)| image.to_owned())
    });
    names.extend(pulled);
    names.sort_unstable();
    names.dedup();
    // Without force, so that images in use by others stay.
    let is_left = |name: &String| {
        docker.run(&["image", "rm", name]).is_err()
            && docker.inspect_image(name, "{{.Id}}").is_some()
    };
    let left: Vec<String> = names.iter().filter(|name| is_left(name)).cloned().collect();
    for label in [RECIPE_LABEL, LABEL] {
        docker.run(&["image", "prune", "--force", "--filter", &by_label(label)])?;
    }
    Ok((names.len() - left.len(), left))
}

/// Reports whether xtask gives images this name. Users may have named our images, or built on them.
fn is_our_name(name: &str) -> bool {
    name.starts_with("longshore/") || name.starts_with("longshore-")
}

/// Stops the private engine with its containers, and removes its network.
fn stop_engine(state: &State) -> Result<String> {
    let pid = running(state);
    if pid.is_some()
        && let Ok(docker) = Docker::connect(&format!("unix://{}", state.engine_socket().display()))
    {
        let containers = docker.run(&["ps", "--all", "--quiet"])?;
        if !containers.is_empty() {
            let args: Vec<&str> =
                ["rm", "--force", "--volumes"].into_iter().chain(containers.lines()).collect();
            docker.run(&args).context("removing the private engine's containers")?;
        }
    }
    for process in [pid, running_containerd(state)].into_iter().flatten() {
        terminate(process, ENGINE_TIMEOUT)?;
    }
    network::remove(state)?;
    Ok(if pid.is_some() { "stopped" } else { "not running" }.to_owned())
}

fn remove_state(state: &State) -> Result<()> {
    unmount_all(state.root())?;
    remove(state.root())
}

fn unmount_all(root: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    for mount in mounts_under(&table, root).iter().filter(|mount| *mount != root) {
        run(super::command::command("umount")?.arg("--lazy").arg(mount))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_program_is_not_an_agent() {
        assert!(!is_agent(i32::try_from(std::process::id()).unwrap()));
        assert!(!is_agent(1));
    }

    #[test]
    fn only_names_given_by_xtask_are_removed() {
        for (name, expected) in [
            ("longshore/range:26.1-overlay2", true),
            ("longshore-demo/tiny:1", true),
            ("theirs/longshore:1", false),
            ("longshoreman/app:1", false),
            ("<none>:<none>", false),
        ] {
            assert_eq!(is_our_name(name), expected, "{name}");
        }
    }
}
