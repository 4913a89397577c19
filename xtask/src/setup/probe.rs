//! The probe: starts a range image once, and asks its engine for version and store.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use range::{Isolation, Mode};
use serde::{Deserialize, Serialize};

use super::docker::Docker;
use super::machine::{LABEL, RangeImage, Store};
use super::state::{State, write_whole};

/// Timeout for the engine in a range to answer.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// The result of a probe, cached so that an image is probed only once.
#[derive(Debug, Serialize, Deserialize)]
struct ProbeResult {
    /// The probed image's ID in the engine that runs the ranges.
    image_id: String,
    engine_version: String,
    store: Store,
}

/// Returns the version and store that the engine in the image `reference` reports.
///
/// # Errors
/// The container does not start, or its engine does not answer.
pub(super) fn probe(
    docker: &Docker,
    state: &State,
    name: &str,
    reference: &str,
) -> Result<RangeImage> {
    let image_id = docker.run(&["image", "inspect", "--format", "{{.Id}}", reference])?;
    let record = state.image_record(name);
    let known: Option<ProbeResult> =
        fs::read(&record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let found = match known.filter(|known| known.image_id == image_id) {
        Some(known) => known,
        None => {
            let (engine_version, store) =
                ask(docker, &format!("longshore-probe-{name}"), reference)?;
            let found = ProbeResult { image_id, engine_version, store };
            write_whole(&record, &serde_json::to_vec_pretty(&found)?)?;
            found
        }
    };
    Ok(RangeImage {
        reference: reference.to_owned(),
        engine_version: found.engine_version,
        store: found.store,
    })
}

fn ask(docker: &Docker, container: &str, reference: &str) -> Result<(String, Store)> {
    // A killed probe may have left a container with this name.
    let remove = ["rm", "--force", "--volumes", container];
    drop(docker.run(&remove));
    let answer = start(docker, container, reference).and_then(|()| answer(docker, container));
    let logs = docker.command(&["logs", "--tail", "15", container]).output();
    drop(docker.run(&remove));
    answer.with_context(|| {
        let logs =
            logs.map(|logs| String::from_utf8_lossy(&logs.stderr).into_owned()).unwrap_or_default();
        format!("probing the engine in {reference}; the end of its log:\n{}", logs.trim_end())
    })
}

fn start(docker: &Docker, container: &str, reference: &str) -> Result<()> {
    let mut capabilities = match Isolation::choose(Mode::Capabilities)? {
        Isolation::Capabilities(names) => names,
        Isolation::Privileged => Vec::new(),
    };
    loop {
        let mut args: Vec<String> =
            ["run", "--detach", "--name", container, "--label", LABEL].map(str::to_owned).into();
        args.extend(flags(&capabilities));
        args.push(reference.to_owned());
        let Err(error) = docker.run(&args.iter().map(String::as_str).collect::<Vec<_>>()) else {
            return Ok(());
        };
        let Some(refused) = refused_capability(&error.to_string()) else { return Err(error) };
        let before = capabilities.len();
        capabilities.retain(|name| *name != refused);
        if capabilities.len() == before {
            return Err(error);
        }
    }
}

/// The capability that an engine refuses, from its error message.
///
/// Older engines do not know all capabilities of newer kernels (20.10: those after `AUDIT_READ`).
fn refused_capability(error: &str) -> Option<String> {
    if !error.contains("invalid CapAdd") {
        return None;
    }
    let (_, rest) = error.rsplit_once("\"CAP_")?;
    rest.split_once('"').map(|(name, _)| name.to_owned())
}

/// The flags that an engine needs to run in a container, besides a volume at `/var/lib/docker`.
///
/// They avoid `--privileged`, which fails on a machine that lacks some capabilities. They still give
/// the container the power of root on the machine, as `--privileged` does.
fn flags(capabilities: &[String]) -> Vec<String> {
    let fixed = [
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
        "--device-cgroup-rule=a *:* rwm",
        "--cgroupns=host",
        "--volume=/sys/fs/cgroup:/sys/fs/cgroup",
    ];
    let added = capabilities.iter().map(|name| format!("--cap-add={name}"));
    added.chain(fixed.iter().map(|flag| (*flag).to_owned())).collect()
}

fn answer(docker: &Docker, container: &str) -> Result<(String, Store)> {
    let started = Instant::now();
    let info = ["exec", container, "docker", "info", "--format", "{{json .}}"];
    loop {
        let last = match docker.run(&info) {
            Ok(text) => match parse_info(&text) {
                Ok(found) => return Ok(found),
                Err(error) => error,
            },
            Err(error) => error,
        };
        let is_running = docker.run(&["inspect", "--format", "{{.State.Running}}", container])?;
        if is_running != "true" || START_TIMEOUT < started.elapsed() {
            return Err(last);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Version and store in the JSON of `docker info`. The store follows from the driver, never from the
/// version.
fn parse_info(text: &str) -> Result<(String, Store)> {
    let info: serde_json::Value = serde_json::from_str(text).context("reading `docker info`")?;
    let Some(version) = info["ServerVersion"].as_str().filter(|version| !version.is_empty()) else {
        bail!("the engine in the image does not answer: {}", info["ServerErrors"]);
    };
    let is_containerd = info["DriverStatus"].as_array().is_some_and(|rows| {
        rows.iter().any(|row| row[0] == "driver-type" && row[1] == "io.containerd.snapshotter.v1")
    });
    let store = match (is_containerd, info["Driver"].as_str()) {
        (true, _) => Store::Containerd,
        (false, Some("overlay2")) => Store::Overlay2,
        (false, driver) => bail!(
            "the engine in the image uses the unsupported store {}: overlay2 and containerd are supported",
            driver.unwrap_or("?")
        ),
    };
    Ok((version.to_owned(), store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_follows_from_the_driver_and_not_from_the_version() {
        let containerd = r#"{"ServerVersion":"28.5.2","Driver":"overlayfs","DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}"#;
        let overlay2 = r#"{"ServerVersion":"28.5.2","Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"]]}"#;
        assert_eq!(parse_info(containerd).unwrap(), ("28.5.2".into(), Store::Containerd));
        assert_eq!(parse_info(overlay2).unwrap(), ("28.5.2".into(), Store::Overlay2));
        for refused in [
            "",
            "{}",
            r#"{"ServerVersion":"","ServerErrors":["no socket"]}"#,
            r#"{"ServerVersion":"26","Driver":"vfs"}"#,
        ] {
            assert!(parse_info(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_refused_capability_is_parsed_from_the_message() {
        for (error, expected) in [
            (
                r#"`docker run` failed: invalid CapAdd: unknown capability: "CAP_PERFMON"."#,
                Some("PERFMON"),
            ),
            (
                r#"invalid CapAdd: capability not supported by your kernel or not available in the current environment: "CAP_BPF""#,
                Some("BPF"),
            ),
            (r#"unable to find image "CAP_X""#, None),
            ("invalid CapAdd", None),
        ] {
            assert_eq!(refused_capability(error).as_deref(), expected, "{error}");
        }
    }
}
