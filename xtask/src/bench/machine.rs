//! A description of the measured machine, without which figures mean nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::context::Bench;
use super::docker::Docker;

/// The machine of a run. Texts are `unknown` if unavailable.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// The processor's name.
    pub(super) cpu: String,
    /// Cores that this process may run on.
    pub(super) cores: usize,
    /// Memory in bytes.
    pub(super) memory_bytes: u64,
    /// The kernel's release.
    pub(super) kernel: String,
    /// The file system of engines and stores.
    pub(super) file_system: String,
    /// The distribution's name.
    pub(super) system: String,
    /// Versions of the host's engine (`host`) and of the engines in range images, by image.
    pub(super) engines: BTreeMap<String, String>,
    /// Load average of the minute before the run. Above a few tenths, other processes affect the
    /// figures.
    pub(super) load: f64,
    /// Start of the run in seconds since 1970.
    pub(super) time: u64,
}

impl Machine {
    /// Describes this machine and its engines.
    pub(super) async fn here(bench: &Bench) -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let template = "{{.Server.Version}}";
        let host = Docker::at(bench.host()).run(&["version", "--format", template]).await?;
        let ranges = bench.machine.range_images.iter();
        let ranges = ranges.map(|image| {
            (image.reference.clone(), format!("{} {}", image.engine_version, image.store))
        });
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(Self {
            cpu: named(field(&read("/proc/cpuinfo"), "model name", ':')),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory(&read("/proc/meminfo")),
            kernel: named(read("/proc/sys/kernel/osrelease").trim()),
            file_system: named(&file_system(&read("/proc/self/mountinfo"), &bench.folder)),
            system: named(field(&read("/etc/os-release"), "PRETTY_NAME", '=').trim_matches('"')),
            engines: ranges.chain([("host".to_owned(), host)]).collect(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|it| it.parse().ok())
                .unwrap_or(0.0),
            time: since.map_or(0, |since| since.as_secs()),
        })
    }

    /// The description in one sentence.
    pub(super) fn sentence(&self) -> String {
        let gigabytes = self.memory_bytes >> 30;
        let engines: Vec<&str> = self.engines.values().map(String::as_str).collect();
        format!(
            "{}, {} cores, {gigabytes} GiB, {}, Linux {}, {}; engines {}; load {} before",
            self.cpu,
            self.cores,
            self.file_system,
            self.kernel,
            self.system,
            engines.join(", "),
            self.load
        )
    }
}

fn field<'a>(text: &'a str, name: &str, mark: char) -> &'a str {
    let pairs = text.lines().filter_map(|line| line.split_once(mark));
    let found = pairs.into_iter().find(|(key, _)| key.trim() == name);
    found.map_or("", |(_, value)| value.trim())
}

fn memory(meminfo: &str) -> u64 {
    let kibibytes = field(meminfo, "MemTotal", ':').trim_end_matches(" kB").parse::<u64>();
    kibibytes.unwrap_or(0) * 1024
}

/// The type of the file system of `folder`, from the kernel's list of mounts.
fn file_system(mounts: &str, folder: &Path) -> String {
    let parsed = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let place = left.split(' ').nth(4)?;
        folder
            .starts_with(place)
            .then(|| (place.len(), right.split(' ').next().unwrap_or_default()))
    });
    // Of two mounts on one folder, the later one is visible.
    parsed.max_by_key(|(len, _)| *len).map_or_else(String::new, |(_, kind)| kind.to_owned())
}

fn named(text: &str) -> String {
    if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_the_nearest_mount() {
        let mounts =
            "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /var rw shared:1 - xfs /dev/b rw\n";
        for (folder, expected) in [("/var/lib/x", "xfs"), ("/variable", "ext4"), ("/", "ext4")] {
            assert_eq!(file_system(mounts, Path::new(folder)), expected, "{folder}");
        }
        assert_eq!(file_system("", Path::new("/")), "");
    }

    #[test]
    fn fields_of_the_kernel_s_files_are_parsed() {
        assert_eq!(memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"), 2 << 20);
        assert_eq!(field("processor\t: 0\nmodel name\t: EPYC: 7\n", "model name", ':'), "EPYC: 7");
        assert_eq!(field("A=1\nPRETTY_NAME=\"Debian\"\n", "PRETTY_NAME", '='), "\"Debian\"");
    }
}
