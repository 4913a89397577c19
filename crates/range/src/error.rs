//! Failures of work on ranges: which range, why, and what to do about it.

use std::path::PathBuf;

use control::RangeName;
use engine::EngineError;
use transfer::blob::Cause;

use crate::isolation::IsolationError;

/// Failures of a call, or of bringing up or reaching one of its ranges.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The engine that runs the ranges failed.
    #[error("the engine that runs the ranges failed")]
    Engine(#[from] EngineError),
    /// The host agent could not be reached, or failed.
    #[error("the host agent at {endpoint} failed while {action}")]
    HostAgent {
        /// Its expected endpoint.
        endpoint: String,
        /// The action that failed.
        action: &'static str,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The host agent answered with a socket whose folder cannot be mounted.
    #[error("the host agent serves range {range} at {}, whose folder cannot be mounted", socket.display())]
    Folder {
        /// The range.
        range: RangeName,
        /// The socket that it answered with.
        socket: PathBuf,
    },
    /// The lock of a range or seed could not be taken.
    #[error("the lock {} could not be taken", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The capabilities that ranges can have are unknown.
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    /// The engine does not have the image that ranges are to be made from.
    #[error("the engine has no range image {image}")]
    NoRangeImage {
        /// The image.
        image: String,
    },
    /// The range image has nothing that the agent could start.
    #[error("range image {image} has neither an entry point nor a command, so it starts no engine")]
    NoEntryPoint {
        /// The image.
        image: String,
    },
    /// The dind agent's binary could not be read.
    #[error("the dind agent's binary {} could not be read", path.display())]
    AgentBinary {
        /// Its expected path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else's container has the range's name.
    #[error("container {container} is there already, and is not a range of this project")]
    Taken {
        /// The container's name.
        container: String,
    },
    /// Somebody else's volume has a name of the range's.
    #[error("volume {volume} is there already, and belongs to no range of this project")]
    TakenVolume {
        /// The volume's name.
        volume: String,
    },
    /// The range is there, made from another image.
    #[error("range {range} is made from {present}, not from {asked}")]
    OtherImage {
        /// The range.
        range: RangeName,
        /// The image that it is made from.
        present: String,
        /// The image that was asked for.
        asked: String,
    },
    /// The ranges would not fit on the disk of the engine that runs them.
    #[error(
        "{ranges} ranges need about {} in {} ({} of images, {copies} times), and {} are free",
        gibibytes(*need), path.display(), gibibytes(*each), gibibytes(*free)
    )]
    NoDisk {
        /// Number of ranges to create.
        ranges: usize,
        /// Number of copies of the images on the disk, a seed included.
        copies: usize,
        /// Bytes of all wanted images, at most.
        each: u64,
        /// Bytes that would be written.
        need: u64,
        /// Bytes that are free.
        free: u64,
        /// The path.
        path: PathBuf,
    },
    /// The engines would not fit into memory.
    #[error("{ranges} ranges need about {} MiB of memory, and {} MiB are free", need >> 20, free >> 20)]
    NoMemory {
        /// Number of ranges to start.
        ranges: usize,
        /// Bytes that they take before they do anything.
        need: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Work on a seed failed.
    #[error("{action} failed: {reason}")]
    Seed {
        /// The action that failed.
        action: &'static str,
        /// The reason.
        reason: String,
    },
    /// There is no such range.
    #[error("there is no range {range}")]
    Unknown {
        /// The range.
        range: RangeName,
    },
    /// The range is there and does not run.
    #[error("range {range} does not run")]
    Stopped {
        /// The range.
        range: RangeName,
    },
    /// The range's container ended while it should come up.
    #[error("range {range} ended with exit code {exit_code} while coming up; its log ends:\n{log}")]
    Ended {
        /// The range.
        range: RangeName,
        /// Its exit code.
        exit_code: i64,
        /// The last lines of its log.
        log: String,
    },
    /// The range did not come up in time.
    #[error("range {range} is not ready after {seconds} s: {reason}")]
    NotReady {
        /// The range.
        range: RangeName,
        /// Seconds that the caller waited.
        seconds: u64,
        /// Its last answer.
        reason: String,
    },
    /// A task for the range failed.
    #[error("{action} failed in range {range}")]
    Task {
        /// The range.
        range: RangeName,
        /// The action that failed.
        action: &'static str,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The range was up, and reported nothing for too long.
    #[error("range {range} reported nothing for {seconds} s while its images were brought in")]
    Silent {
        /// The range.
        range: RangeName,
        /// The time in seconds.
        seconds: u64,
    },
    /// The range was there, and went away while it was worked on.
    #[error("range {range} was removed while its images were brought in")]
    Gone {
        /// The range.
        range: RangeName,
    },
    /// The range has no wanted images, and none were named.
    #[error("range {range} has no wanted images, and none were named")]
    NothingWanted {
        /// The range.
        range: RangeName,
    },
}

impl RangeError {
    /// The next step for a person; `None` if the message says it all.
    #[must_use]
    pub fn next_step(&self) -> Option<String> {
        Some(match self {
            Self::HostAgent { .. } => {
                "check that the host agent runs and look into its log".to_owned()
            }
            Self::Lock { .. } => {
                "choose a folder of locks that you can write, the same for all callers".to_owned()
            }
            Self::NoRangeImage { image } => format!("`docker pull {image}`, or name another one"),
            Self::AgentBinary { .. } => "build the dind agent first".to_owned(),
            Self::Taken { container } => {
                format!(
                    "choose another name for the range, or `docker rm` {container} if nobody needs it"
                )
            }
            Self::TakenVolume { volume } => format!(
                "choose another name for the range, or `docker volume rm` {volume} if nobody needs it"
            ),
            Self::OtherImage { range, .. } => {
                format!("take {range} down first, or choose another name")
            }
            Self::Unknown { .. } => "list the ranges to see which there are".to_owned(),
            Self::Stopped { range } => format!("bring {range} up again"),
            Self::NotReady { range, .. } | Self::Silent { range, .. } => {
                format!(
                    "look at `docker logs` of the container of range {range}, then bring it up again"
                )
            }
            Self::NoDisk { .. } => "ask for fewer ranges or images, make room, or let the engine \
                                    keep its data on XFS or btrfs, where ranges share the bytes of a \
                                    seed"
                .to_owned(),
            Self::NoMemory { .. } => "ask for fewer ranges, or take some down first".to_owned(),
            Self::Gone { range } => format!("bring {range} up again if it was not meant to go"),
            Self::NothingWanted { .. } => "name the images that it should have".to_owned(),
            _ => return None,
        })
    }

    /// The message with all its causes and the next step.
    #[must_use]
    pub fn explain(&self) -> String {
        let text = transfer::explain(self);
        match self.next_step() {
            Some(step) => format!("{text}; {step}"),
            None => text,
        }
    }

    /// A failure of work on a seed.
    pub(crate) fn seed(action: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Seed { action, reason: reason.to_string() }
    }

    /// Wraps the failure of a task for `range`.
    pub(crate) fn task(range: &RangeName, action: &'static str, source: impl Into<Cause>) -> Self {
        Self::Task { range: range.clone(), action, source: source.into() }
    }
}

fn gibibytes(bytes: u64) -> String {
    format!("{}.{} GiB", bytes >> 30, ((bytes & ((1 << 30) - 1)) * 10) >> 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_explained_with_its_causes_and_the_next_step() {
        let error = RangeError::HostAgent {
            endpoint: "unix:///x".to_owned(),
            action: "adding a range",
            source: Box::new(std::io::Error::other("connection refused")),
        };
        assert_eq!(
            error.explain(),
            "the host agent at unix:///x failed while adding a range: connection refused; \
             check that the host agent runs and look into its log"
        );
    }
}
