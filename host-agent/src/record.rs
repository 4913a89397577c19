//! The record of a range: a small file beside its folder, replaced as a whole.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use control::{Pattern, WantedSet};
use serde::{Deserialize, Serialize};
use transfer::Reference;

/// Largest record in bytes: a thousand references of the greatest length fit well.
const MAX_RECORD: u64 = 4 << 20;

/// The record of a range. A range that is new has an empty one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Grows with each change of the wanted set.
    revision: u64,
    /// The images that it is to have.
    wanted: Vec<Reference>,
    /// Grows with each change of the wanted set, and each time all of it is to be looked at again.
    #[serde(default)]
    round: u64,
    /// Patterns of other images that it may read; absent in a record from before grants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grants: Option<Vec<Pattern>>,
    /// Additional TCP address; `None` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp_address: Option<SocketAddr>,
}

/// Failures of reading or writing a record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It could not be read or written.
    #[error("could not {action} {}", path.display())]
    Io {
        /// The attempted action.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It is not a record: somebody else wrote it, or the disk lost some of it.
    #[error("{} is not the record of a range; set the range's wanted images anew", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The error in the record.
        #[source]
        source: serde_json::Error,
    },
    /// It is larger than any record.
    #[error("{} has more than {MAX_RECORD} bytes, so it is not a range's record", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl RecordError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

impl Record {
    /// A record of these.
    #[must_use]
    pub fn new(wanted: WantedSet, grants: Vec<Pattern>, tcp_address: Option<SocketAddr>) -> Self {
        let WantedSet { references, revision, round } = wanted;
        Self { revision, wanted: references, round, grants: Some(grants), tcp_address }
    }

    /// The images that the range is to have.
    #[must_use]
    pub fn wanted(&self) -> WantedSet {
        let Self { revision, round, .. } = *self;
        WantedSet { references: self.wanted.clone(), revision, round }
    }

    /// Patterns of other images that it may read; `None` if they were never set.
    #[must_use]
    pub fn grants(&self) -> Option<&[Pattern]> {
        self.grants.as_deref()
    }

    /// Additional TCP address; `None` without one.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp_address
    }

    /// Reads the record at `path`; a missing file is an empty record.
    ///
    /// # Errors
    /// Any [`RecordError`].
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(RecordError::io("open", path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(RecordError::io("read", path))?;
        if MAX_RECORD < bytes.len() as u64 {
            return Err(RecordError::TooLarge { path: path.to_owned() });
        }
        serde_json::from_slice(&bytes)
            .map_err(|source| RecordError::Malformed { path: path.to_owned(), source })
    }

    /// Writes the record: after a kill or a power cut there is the old one or this one.
    ///
    /// # Errors
    /// [`RecordError::Io`]; the old one stays.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let fresh = path.with_extension("json.new");
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| RecordError::io("write", path)(error.into()))?;
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.create(true).truncate(true).write(true).mode(0o600).open(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(RecordError::io("write", &fresh))?;
        std::fs::rename(&fresh, path).map_err(RecordError::io("replace", path))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|it| it.sync_all()).map_err(RecordError::io("sync", folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("range.json");
        assert_eq!(Record::read(&path).unwrap(), Record::default());
        let mut set = WantedSet::default();
        for names in [&["python:3", "localhost:5000/team/app:1"][..], &[]] {
            set = set.replaced(names.iter().map(|name| name.parse().unwrap()).collect(), 0);
            let grants = vec![Pattern::all(), "team/*".parse().unwrap()];
            let tcp = Some("127.0.0.1:40123".parse().unwrap());
            let record = Record::new(set.clone(), grants.clone(), tcp);
            // The remains of an earlier write that a kill interrupted do not matter.
            std::fs::write(path.with_extension("json.new"), "{\"revi").unwrap();
            record.write(&path).unwrap();
            assert_eq!(Record::read(&path).unwrap(), record);
            assert_eq!(record.wanted(), set);
            assert_eq!(record.grants(), Some(grants.as_slice()));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_record_from_before_grants_and_rounds_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("range.json");
        std::fs::write(&path, r#"{"revision":3,"wanted":["python:3"]}"#).unwrap();
        let record = Record::read(&path).unwrap();
        let references = vec!["python:3".parse().unwrap()];
        assert_eq!(record.wanted(), WantedSet { references, revision: 3, round: 0 });
        assert_eq!((record.grants(), record.tcp_address()), (None, None));
    }

    #[test]
    fn what_is_no_record_is_said_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("range.json");
        let long = format!("{{\"revision\":1,\"wanted\":[{}\"a\"]}}", "\"a\",".repeat(1 << 20));
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "{\"revision\":1,\"wanted\":[\"A B\"]}",
            "{\"revision\":1,\"wanted\":[],\"else\":1}",
            "{\"revision\":-1,\"wanted\":[]}",
            "{\"revision\":1,\"wanted\":[],\"grants\":[\"a b\"]}",
            &long,
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Record::read(&path).unwrap_err().to_string();
            assert!(error.contains("range.json"), "{error}");
        }
    }
}
