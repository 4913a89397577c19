//! An engine at work on an image: whether it lives, and what it says of it in the end.

use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;
use transfer::LoadError;

use crate::docker::api::Docker;
use crate::docker::api::error::EngineError;
use crate::docker::api::error::says_no_space;

/// Maximum time for an answer to a ping, on a machine that is extracting several images.
pub(super) const PING_DEADLINE: Duration = Duration::from_secs(20);

/// How often a busy engine is pinged during a load. A frozen one is found after this time and
/// [`PING_DEADLINE`].
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum silence of a load while the engine lives, without a byte or a word: the containerd store
/// unpacks a whole image in silence, 8 GiB of it on a slow disk in well under this time.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(30 * 60);

/// Longest message of the engine that is understood, in bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// Time of a load's last byte or message.
#[derive(Debug)]
pub(super) struct Progress(Mutex<Instant>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Progress {
    /// Notes one just now.
    pub(super) fn made(&self) {
        *self.0.lock().expect("invariant: storing a time does not panic") = Instant::now();
    }

    fn silence(&self) -> Duration {
        self.0.lock().expect("invariant: storing a time does not panic").elapsed()
    }
}

/// Runs a load, and ends it when the engine shows no sign of life or is silent for too long.
pub(super) async fn watched<E: From<EngineError>>(
    docker: &Docker,
    action: &'static str,
    progress: &Progress,
    load: impl Future<Output = Result<(), E>>,
) -> Result<(), E> {
    let mut load = pin!(load);
    loop {
        if let Ok(ended) = tokio::time::timeout(PING_INTERVAL, &mut load).await {
            return ended;
        }
        let silence = progress.silence();
        if silence < PING_INTERVAL {
            continue;
        }
        let stalled = || EngineError::timed_out(docker.address(), action, silence);
        if MAX_SILENCE < silence {
            return Err(stalled().into());
        }
        tokio::select! {
            // First, so that a load which ends meanwhile counts.
            biased;
            ended = &mut load => return ended,
            alive = is_alive(docker) => if !alive {
                return Err(stalled().into());
            },
        }
    }
}

/// Whether the engine answers a ping in time.
pub(super) async fn is_alive(docker: &Docker) -> bool {
    matches!(tokio::time::timeout(PING_DEADLINE, docker.ping()).await, Ok(Ok(())))
}

/// The engine's messages about a load: JSON objects, one a line.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    line: Vec<u8>,
    refusal: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message {
    stream: Option<String>,
    error: Option<String>,
    error_detail: Option<Detail>,
}

#[derive(Deserialize)]
struct Detail {
    message: Option<String>,
}

impl Verdict {
    /// Takes the next piece of what it says.
    pub(super) fn take(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let room = MAX_MESSAGE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let message = match serde_json::from_slice::<Message>(&line) {
            Ok(message) => message,
            // Not what an engine says; a trouble in it is still told.
            Err(_) => Message {
                stream: Some(String::from_utf8_lossy(&line).into_owned()),
                error: None,
                error_detail: None,
            },
        };
        let detail = message.error_detail.and_then(|detail| detail.message);
        // The containerd store tells a broken image in passing, and calls it loaded.
        let unpacking = message.stream.filter(|text| text.contains("Error unpacking"));
        if let Some(refusal) = detail.or(message.error).or(unpacking) {
            self.refusal.get_or_insert_with(|| refusal.trim().to_owned());
        }
    }

    /// The result, after the last message.
    pub(super) fn finish(&mut self) -> Result<(), LoadError> {
        self.end_line();
        match self.refusal.take() {
            None => Ok(()),
            Some(message) if says_no_space(&message) => Err(LoadError::NoSpace { message }),
            Some(message) => Err(LoadError::Refused { message }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(said: &str, piece: usize) -> Result<(), LoadError> {
        let mut verdict = Verdict::default();
        said.as_bytes().chunks(piece).for_each(|piece| verdict.take(piece));
        verdict.finish()
    }

    #[test]
    fn a_refusal_is_heard_in_every_form_and_in_any_pieces() {
        let good = r#"{"stream":"Loaded image ID: sha256:0\n"}"#;
        let refused = [
            format!("{good}\r\n{{\"errorDetail\":{{\"message\":\"bad\"}},\"error\":\"bad\"}}\r\n"),
            "{\"error\":\"bad\"}".into(),
            format!("{good}\n{{\"stream\":\"Error unpacking image x: bad\\n\"}}\n"),
            "Error unpacking image x: bad".into(),
        ];
        for piece in [1, 7, 4096] {
            assert!(verdict("", piece).is_ok());
            assert!(verdict(&format!("{good}\r\n{good}\r\n"), piece).is_ok());
            for said in &refused {
                let Err(LoadError::Refused { message }) = verdict(said, piece) else {
                    panic!("{said:?} in pieces of {piece} was taken for success");
                };
                assert!(message.contains("bad"), "{message}");
            }
        }
    }

    #[test]
    fn a_full_disk_has_a_name_of_its_own() {
        let said = r#"{"errorDetail":{"message":"write /x: no space left on device"}}"#;
        assert!(matches!(verdict(said, 5), Err(LoadError::NoSpace { .. })));
    }
}
