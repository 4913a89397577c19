//! Resources used by processes and control groups, as the kernel counts them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Clock ticks per second in `/proc/<pid>/stat`, the same on every supported Linux.
const TICKS: f64 = 100.0;

/// User and system CPU seconds of the process `pid` with all its threads.
pub(super) fn cpu_seconds(pid: i32) -> Result<f64> {
    let [user, system, _, _] = times(pid)?;
    Ok(user + system)
}

/// CPU seconds of the process `pid` and of its ended children, in which an engine unpacks layers.
pub(super) fn cpu_seconds_with_children(pid: i32) -> Result<f64> {
    Ok(times(pid)?.iter().sum())
}

fn times(pid: i32) -> Result<[f64; 4]> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse_times(&text).with_context(|| format!("{path} has no times"))
}

/// User and system seconds of the process, then of its ended children.
fn parse_times(stat: &str) -> Option<[f64; 4]> {
    let mut fields = fields_after_name(stat)?.skip(11);
    let mut next = || Some(fields.next()?.parse::<f64>().ok()? / TICKS);
    Some([next()?, next()?, next()?, next()?])
}

/// The fields from the third on. The second is a name that may contain spaces and brackets.
fn fields_after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// The processes among `parent` and its children that run `program`.
pub(super) fn family(parent: i32, program: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_kin = |pid: &i32| *pid == parent || parent_of(*pid) == Some(parent);
    let runs = |pid: &i32| {
        let link = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        link.file_name().is_some_and(|name| name.to_string_lossy().starts_with(program))
    };
    pids.filter(|pid| is_kin(pid) && runs(pid)).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    fields_after_name(&stat)?.nth(1)?.parse().ok()
}

/// CPU seconds of the control group of `pid`; `None` if unavailable.
///
/// A container's group counts all its processes, including ended ones.
pub(super) fn group_cpu_seconds(pid: i32) -> Option<f64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let folder = Path::new("/sys/fs/cgroup");
    group_folders(folder, &groups).into_iter().find_map(|group| {
        if let Ok(text) = fs::read_to_string(group.join("cpuacct.usage")) {
            return Some(text.trim().parse::<f64>().ok()? / 1e9);
        }
        let text = fs::read_to_string(group.join("cpu.stat")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
        Some(line.trim().parse::<f64>().ok()? / 1e6)
    })
}

/// Folders of the groups that count CPU time: the `cpuacct` group on cgroup v1, the only group on v2.
fn group_folders(root: &Path, groups: &str) -> Vec<PathBuf> {
    let lines = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            return Some(root.join(path));
        }
        let accounts = controllers.split(',').any(|controller| controller == "cpuacct");
        accounts.then(|| root.join(controllers).join(path))
    });
    lines.collect()
}

/// The process that listens on the Unix socket at `path`; `None` if there is none or it is unknown.
pub(super) fn listener(path: &Path) -> Option<i32> {
    let stream = std::os::unix::net::UnixStream::connect(path).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// Disk usage of `folder` in bytes, without holes; 0 for a missing folder.
pub(super) fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    let mut folders = vec![folder.to_owned()];
    let mut seen = std::collections::HashSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
                sum += meta.blocks() * 512;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_after_any_process_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 25 75 20 0";
        assert_eq!(parse_times(stat), Some([1.5, 0.5, 0.25, 0.75]));
        assert_eq!(parse_times("7 (a"), None);
        assert!(cpu_seconds(i32::try_from(std::process::id()).unwrap()).is_ok());
    }

    #[test]
    fn the_cpu_group_is_found_on_both_cgroup_versions() {
        let root = Path::new("/g");
        for (groups, expected) in [
            ("5:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n", "/g/cpu,cpuacct/docker/x"),
            ("0::/docker/x\n", "/g/docker/x"),
        ] {
            assert_eq!(group_folders(root, groups), [PathBuf::from(expected)], "{groups:?}");
        }
        assert!(group_folders(root, "3:memory:/x\n").is_empty());
    }

    #[test]
    fn disk_usage_counts_hard_links_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("below/file"), [1; 8192]).unwrap();
        fs::hard_link(folder.path().join("below/file"), folder.path().join("again")).unwrap();
        assert_eq!(disk_bytes(folder.path()), 8192);
        assert_eq!(disk_bytes(Path::new("/nonexistent")), 0);
    }
}
