//! Reports of the agent about itself and its engine.

use std::path::PathBuf;

use control::link::AgentStatus;
use control::range::Reach;
use process::memory;
use process::supervise::Note;
use tokio::time::Instant;
use transfer::EngineInfo;

/// This agent.
#[derive(Debug)]
pub(crate) struct About {
    started: Instant,
    /// The supervisor's note on the engine; the file need not exist.
    note: PathBuf,
}

impl About {
    /// An agent that starts now.
    pub(crate) fn starting(note: PathBuf) -> Self {
        Self { started: Instant::now(), note }
    }

    /// The agent's status, with its engine's.
    pub(crate) fn status(&self, engine: Reach<EngineInfo>) -> AgentStatus {
        let note = Note::read(&self.note);
        let engine = match (engine, note.as_ref().and_then(Note::explain)) {
            (Reach::Down(reason), Some(note)) => Reach::Down(format!("{reason}; {note}")),
            (engine, _) => engine,
        };
        AgentStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime: self.started.elapsed(),
            engine,
            engine_restarts: note.map_or(0, |note| note.restarts),
            peak_rss_bytes: memory::peak_rss().unwrap_or(0),
        }
    }
}
