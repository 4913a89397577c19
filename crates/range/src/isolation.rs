//! Permissions of a range's engine: `--privileged`, or each capability that the host has.
//!
//! An engine inside a container needs mounts, namespaces and devices. `--privileged` gives all of
//! that, but asks for *every* capability, and a host whose own bounding set is not full refuses it
//! (`unable to apply caps: operation not permitted`). There, each capability of the bounding set is
//! given by name instead. Neither is a boundary: see [`Isolation::sentence`].
//!
//! Control groups: with `--privileged` the engine around a range gives it a hierarchy of its own on
//! cgroup v2, where the entry point of our range images moves its processes to a leaf, so that
//! controllers can be handed down. With capabilities the host's hierarchy is mounted and left as it
//! is. This was run on cgroup v1; no machine with cgroup v2 was at hand to try it on.

use std::fmt;

use engine::docker::Powers;

/// The rights that [`Settings::mode`](crate::Settings::mode) asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `--privileged` where the host can give it, else capabilities.
    #[default]
    Auto,
    /// `--privileged`, even if the host lacks capabilities.
    Privileged,
    /// Every capability of the host's bounding set, by name.
    Capabilities,
}

/// The rights of ranges, as chosen for this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// With `--privileged`.
    Privileged,
    /// With these capabilities (`SYS_ADMIN`, …), the system call filter and path masks switched
    /// off, all devices allowed, and the host's control groups mounted.
    Capabilities(Vec<String>),
}

/// A failure to read the capabilities of this host.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// A file of `/proc` could not be read.
    #[error("{path} could not be read, so the capabilities that ranges can have are unknown")]
    Unreadable {
        /// The file.
        path: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file of `/proc` has an unknown format.
    #[error("{path} does not say which capabilities there are: {text:?}")]
    Malformed {
        /// The file.
        path: &'static str,
        /// Its text, cut to a length that is safe to print.
        text: String,
    },
}

const STATUS: &str = "/proc/self/status";
const LAST_CAP: &str = "/proc/sys/kernel/cap_last_cap";

/// The names of the capabilities by their numbers, of `include/uapi/linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Isolation {
    /// Chooses by the capabilities of this host, read from `/proc`.
    ///
    /// The engine that runs the ranges must be on this host; for another one name the mode.
    ///
    /// # Errors
    /// [`IsolationError`] unless `mode` is [`Mode::Privileged`], which asks nobody.
    pub fn choose(mode: Mode) -> Result<Self, IsolationError> {
        if mode == Mode::Privileged {
            return Ok(Self::Privileged);
        }
        let read = |path| {
            std::fs::read_to_string(path)
                .map_err(|source| IsolationError::Unreadable { path, source })
        };
        Self::from_proc(mode, &read(STATUS)?, &read(LAST_CAP)?)
    }

    /// Chooses by the texts of `/proc/self/status` and `/proc/sys/kernel/cap_last_cap`.
    fn from_proc(mode: Mode, status: &str, last_cap: &str) -> Result<Self, IsolationError> {
        let bounding = bounding_set(status)?;
        let full = full_set(last_cap)?;
        if mode == Mode::Auto && bounding & full == full {
            return Ok(Self::Privileged);
        }
        Ok(Self::Capabilities(names(bounding)))
    }

    /// The same in the words of an engine.
    pub(crate) fn powers(&self) -> Powers {
        match self {
            Self::Privileged => Powers::Privileged,
            Self::Capabilities(names) => Powers::Capabilities(names.clone()),
        }
    }

    /// A warning for people who let others into such a range, as one sentence.
    #[must_use]
    pub fn sentence(&self) -> &'static str {
        match self {
            Self::Privileged => {
                "ranges run with --privileged: root inside one is as strong as \
                                 root on this host, so a range keeps accidents in, not attackers"
            }

            Self::Capabilities(_) => {
                "ranges run without --privileged, which this host cannot \
                                      give, but with every capability that it has, all devices \
                                      and no system call filter: root inside one is as strong as \
                                      root on this host, so a range keeps accidents in, not \
                                      attackers"
            }
        }
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Capabilities(_) => "capabilities",
        })
    }
}

/// The bounding set, a bit for each capability, from the text of `/proc/self/status`.
fn bounding_set(status: &str) -> Result<u64, IsolationError> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| malformed(STATUS, status))
}

/// Every capability that the kernel knows, from the number of the last one.
fn full_set(last_cap: &str) -> Result<u64, IsolationError> {
    let last: u32 = last_cap.trim().parse().map_err(|_| malformed(LAST_CAP, last_cap))?;
    1u64.checked_shl(last).map(|bit| bit | (bit - 1)).ok_or_else(|| malformed(LAST_CAP, last_cap))
}

/// The set's names. A capability newer than [`NAMES`] has none that an engine would understand
/// either, and is left out.
fn names(set: u64) -> Vec<String> {
    let is_in = |number: usize| set >> number & 1 == 1;
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| is_in(*number))
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

/// The capability, among `given`, that an engine's refusal of a container is about.
///
/// An engine knows the capabilities of its own time: 20.10 answers `invalid CapAdd: unknown
/// capability: "CAP_BPF"`. Newer ones also say `… not available in the current environment:
/// "CAP_BPF"` of what they were not given themselves. Either names one at a time.
pub(crate) fn refused<'a>(given: &'a [String], message: &str) -> Option<&'a str> {
    if !message.contains("CapAdd") && !message.contains("capabilit") {
        return None;
    }
    let named = |name: &&String| message.contains(&format!("\"CAP_{name}\""));
    given.iter().find(named).map(String::as_str)
}

fn malformed(path: &'static str, text: &str) -> IsolationError {
    IsolationError::Malformed { path, text: text.chars().take(80).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(hex: &str) -> String {
        format!(
            "Name:\tcargo\nCapEff:\t0000000000000000\nCapBnd:\t{hex}\nCapAmb:\t0000000000000000\n"
        )
    }

    fn choose(mode: Mode, hex: &str) -> Isolation {
        Isolation::from_proc(mode, &status(hex), "40\n").unwrap()
    }

    #[test]
    fn a_full_bounding_set_gives_privileged_ranges() {
        assert_eq!(choose(Mode::Auto, "000001ffffffffff"), Isolation::Privileged);
        assert_eq!(
            choose(Mode::Auto, "000003ffffffffff"),
            Isolation::Privileged,
            "a newer kernel's set"
        );
    }

    #[test]
    fn one_missing_capability_gives_the_others_by_name() {
        let Isolation::Capabilities(names) = choose(Mode::Auto, "000001fffeffffff") else {
            panic!("SYS_RESOURCE is missing");
        };
        assert_eq!(names.len(), 40);
        assert!(!names.iter().any(|name| name == "SYS_RESOURCE"), "{names:?}");
        assert_eq!((names[0].as_str(), names[39].as_str()), ("CHOWN", "CHECKPOINT_RESTORE"));
    }

    #[test]
    fn a_mode_that_was_asked_for_is_taken() {
        assert_eq!(
            choose(Mode::Capabilities, "0000000000200001"),
            Isolation::Capabilities(vec!["CHOWN".to_owned(), "SYS_ADMIN".to_owned()])
        );
        assert_eq!(Isolation::choose(Mode::Privileged).unwrap(), Isolation::Privileged);
    }

    #[test]
    fn an_unreadable_proc_is_an_error_and_never_a_guess() {
        let check = |status: &str, last_cap: &str| {
            let chosen = Isolation::from_proc(Mode::Auto, status, last_cap);
            assert!(
                matches!(chosen, Err(IsolationError::Malformed { .. })),
                "{status:?} {last_cap:?}"
            );
        };
        check("Name:\tcargo\n", "40");
        check(&status("not hex"), "40");
        check(&status("000001ffffffffff"), "");
        check(&status("000001ffffffffff"), "64");
    }

    #[test]
    fn a_capability_that_an_engine_does_not_know_is_found_in_its_refusal() {
        let given = ["SYS_ADMIN", "BPF", "PERFMON"].map(str::to_owned);
        let check = |message: &str, expected: Option<&str>| {
            assert_eq!(refused(&given, message), expected, "{message}");
        };
        check(r#"invalid CapAdd: unknown capability: "CAP_PERFMON""#, Some("PERFMON"));
        check(
            r#"invalid CapAdd: capability not supported by your kernel or not available in the current environment: "CAP_BPF""#,
            Some("BPF"),
        );
        check(r#"invalid CapAdd: unknown capability: "CAP_NEWER""#, None);
        check("no such image: CAP_BPF", None);
    }

    #[test]
    fn the_sentence_never_promises_a_boundary() {
        for isolation in [Isolation::Privileged, Isolation::Capabilities(Vec::new())] {
            assert!(isolation.sentence().contains("as strong as root on this host"), "{isolation}");
        }
    }
}
