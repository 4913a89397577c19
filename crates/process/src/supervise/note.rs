//! The supervisor's note on a child, for an agent that reports it: a small file between the two.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// History of a child's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Number of restarts.
    pub restarts: u32,
    /// Result of the last run, such as `exit status 1` or `signal 9`; `None` before the first end.
    pub last_end: Option<String>,
}

impl Note {
    /// Reads the note; none where no supervisor runs beside this agent, or it has not written yet.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes the note, whole or not at all.
    ///
    /// # Errors
    /// The system's own.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let temporary = path.with_extension("json.new");
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, path)
    }

    /// Addition to "the engine does not answer"; `None` while nothing went wrong.
    #[must_use]
    pub fn explain(&self) -> Option<String> {
        let end = self.last_end.as_ref()?;
        Some(format!(
            "its process ended with {end} (restarts so far: {}); its log says why",
            self.restarts
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/note.json");
        assert_eq!(Note::read(&path), None);
        let note = Note { restarts: 2, last_end: Some("signal 9".into()) };
        note.write(&path).unwrap();
        assert_eq!(Note::read(&path), Some(note));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Note::read(&path), None);
    }
}
