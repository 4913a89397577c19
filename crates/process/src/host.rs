//! State of a host agent, for people and for programs: what `longshore-host-agent status` and the
//! command's `host` verbs print.
//!
//! Everything comes over the administrator's socket: ranges report to the running agent, and nothing
//! that a range can write is opened here.

use std::time::{SystemTime, UNIX_EPOCH};

use control::admin::{HostStats, ServedRange};
use control::link::{Attachment, ImageState};
use control::range::Reach;
use control::transfers::{Transfer, TransferKind};
use proto::client::{RemoteError, is_serving};
use proto::{AdminClient, Endpoint};
use serde_json::{Value, json};

use crate::output::{Table, short_digest, size, time, yes_no};

/// State of a host agent.
#[derive(Clone, Debug)]
pub struct HostState {
    /// True if the agent serves: its engine answers.
    pub serving: bool,
    /// Its counters.
    pub stats: HostStats,
    /// The ranges that it serves.
    pub ranges: Vec<ServedRange>,
    /// Blobs under way.
    pub transfers: Vec<Transfer>,
}

impl HostState {
    /// Asks the agent at `endpoint`.
    ///
    /// # Errors
    /// Any [`RemoteError`].
    pub async fn ask(endpoint: &Endpoint) -> Result<Self, RemoteError> {
        let admin = AdminClient::new(endpoint.clone());
        let serving = is_serving(endpoint).await?;
        let (stats, ranges, transfers) = (admin.stats(), admin.ranges(), admin.transfers());
        let (stats, ranges, transfers) = tokio::try_join!(stats, ranges, transfers)?;
        Ok(Self { serving, stats, ranges, transfers })
    }

    /// All of it for people.
    #[must_use]
    pub fn text(&self) -> String {
        table(self)
    }

    /// All of it for programs, as one object.
    #[must_use]
    pub fn json(&self) -> Value {
        as_json(self)
    }
}

/// Ranges for people, one a line.
#[must_use]
pub fn ranges_text(ranges: &[ServedRange]) -> String {
    let mut table = Table::new(["RANGE", "WANTED>", "IN STEP", "CONNECTIONS>", "TCP"]);
    ranges.iter().for_each(|range| table.row(range_row(range)));
    table.to_string()
}

/// Transfers for people, one a line.
#[must_use]
pub fn transfers_text(transfers: &[Transfer]) -> String {
    let mut table = Table::new(["TRANSFER", "FOR", "BLOB", "AT>", "OF>"]);
    transfers.iter().for_each(|transfer| table.row(transfer_row(transfer)));
    table.to_string()
}

fn table(shown: &HostState) -> String {
    let HostStats { engine, export_way, store, .. } = &shown.stats;
    let engine = match engine {
        Some(engine) => format!("{}, {} ({})", engine.engine, engine.driver, engine.store),
        None => "does not answer".into(),
    };
    let marks = match store.high_water {
        0 => "not collected".to_owned(),
        high => format!("collected above {}", size(high)),
    };
    let way = if export_way.is_empty() { "not known yet" } else { export_way };
    let mut text = format!(
        "agent    {} {}, up {}\nengine   {engine}\nlayers   by {way}, {} read\nstore    {} in {} \
         blobs, {marks}, {} free\n",
        shown.stats.version,
        if shown.serving { "serves" } else { "does not serve" },
        time(shown.stats.uptime),
        size(shown.stats.engine_bytes_read),
        size(store.bytes),
        store.blobs,
        size(store.free),
    );
    if !shown.ranges.is_empty() {
        text += &format!("\n{}", ranges_text(&shown.ranges));
    }
    if !shown.transfers.is_empty() {
        text += &format!("\n{}", transfers_text(&shown.transfers));
    }
    text
}

fn range_row(range: &ServedRange) -> [String; 5] {
    [
        range.name.to_string(),
        range.wanted.references.len().to_string(),
        in_step(range).map_or("?", yes_no).into(),
        range.connections.to_string(),
        range.tcp_endpoint.map_or("-".into(), |address| address.to_string()),
    ]
}

/// True if a range has its wanted images; `None` while its agent is not attached.
fn in_step(range: &ServedRange) -> Option<bool> {
    matches!(range.attachment, Attachment::Attached { .. }).then(|| range.is_in_step())
}

fn transfer_row(transfer: &Transfer) -> [String; 5] {
    let unknown = || "?".to_owned();
    let (whom, blob, at, of) = match &transfer.kind {
        TransferKind::Read { caller, digest, size, offset, .. } => {
            (caller.clone(), digest.to_string(), *offset, Some(*size))
        }
        TransferKind::Ingest { digest, size } => {
            let digest = digest.map_or_else(unknown, |digest| digest.to_string());
            ("the store".to_owned(), digest, transfer.bytes, *size)
        }
    };
    let of = of.map_or_else(unknown, size);
    [transfer.id.to_string(), whom, short_digest(&blob), size(at), of]
}

fn as_json(shown: &HostState) -> Value {
    let HostStats { version, uptime, engine, export_way, store, .. } = &shown.stats;
    let engine = engine.as_ref().map(
        |engine| json!({ "engine": engine.engine, "driver": engine.driver, "store": engine.store }),
    );
    json!({
        "serving": shown.serving,
        "version": version,
        "uptime_seconds": uptime.as_secs(),
        "engine": engine,
        "export_way": export_way,
        "engine_bytes_read": shown.stats.engine_bytes_read,
        "saves": shown.stats.saves,
        "bytes_served": shown.stats.bytes_served,
        "store": {
            "blobs": store.blobs,
            "bytes": store.bytes,
            "high_water_bytes": store.high_water,
            "low_water_bytes": store.low_water,
            "collected_blobs": store.collected_blobs,
            "collected_bytes": store.collected_bytes,
            "free_bytes": store.free,
            "quarantined": shown.stats.quarantined,
        },
        "ranges": shown.ranges.iter().map(range_json).collect::<Vec<_>>(),
        "transfers": shown.transfers.iter().map(transfer_json).collect::<Vec<_>>(),
    })
}

/// A range for programs.
#[must_use]
pub fn range_json(range: &ServedRange) -> Value {
    let seen = match range.attachment {
        Attachment::Never => None,
        Attachment::Attached { last_seen, .. } | Attachment::Detached { last_seen } => {
            Some(last_seen)
        }
    };
    json!({
        "name": range.name,
        "socket": range.socket_path,
        "tcp": range.tcp_endpoint,
        "connections": range.connections,
        "wanted": range.wanted.references.len(),
        "in_step": in_step(range),
        "attached": matches!(range.attachment, Attachment::Attached { .. }),
        "last_seen_unix_ms": seen.map(unix_ms),
        "error": error(range),
    })
}

/// Reason why a range lacks wanted images: its engine does not answer, or an image failed.
fn error(range: &ServedRange) -> Option<String> {
    let state = range.state.as_ref()?;
    if let Reach::Down(why) = &state.agent.engine {
        return Some(why.clone());
    }
    state.images.values().find_map(|image| match &image.state {
        ImageState::Failed { error, .. } => Some(format!("{}: {error}", image.reference)),
        _ => None,
    })
}

fn unix_ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A transfer for programs.
#[must_use]
pub fn transfer_json(transfer: &Transfer) -> Value {
    let mut value = json!({
        "id": transfer.id.to_string(),
        "started_unix_ms": unix_ms(transfer.started),
        "bytes": transfer.bytes,
    });
    let kind = match &transfer.kind {
        TransferKind::Read { caller, config_digest, digest, size, offset } => json!({
            "caller": caller,
            "config_digest": config_digest.to_string(),
            "digest": digest.to_string(),
            "size": size,
            "offset": offset,
        }),
        TransferKind::Ingest { digest, size } => {
            json!({ "digest": digest.map(|digest| digest.to_string()), "size": size })
        }
    };
    if let (Some(value), Value::Object(kind)) = (value.as_object_mut(), kind) {
        value.extend(kind);
    }
    value
}

#[cfg(test)]
mod tests {
    use control::WantedSet;
    use control::transfers::TransferId;
    use transfer::Digest;

    use super::*;

    fn state() -> HostState {
        let range = |name: &str, tcp: Option<&str>| ServedRange {
            name: name.parse().unwrap(),
            socket_path: "/s/host.sock".into(),
            connections: 2,
            wanted: WantedSet { references: vec!["app:1".parse().unwrap()], revision: 1, round: 9 },
            grants: Vec::new(),
            attachment: Attachment::Never,
            state: None,
            tcp_endpoint: tcp.map(|address| address.parse().unwrap()),
        };
        let ingest = TransferKind::Ingest { digest: Some(Digest::of(b"layer")), size: None };
        HostState {
            serving: false,
            stats: HostStats { version: "1.2.3".into(), ..HostStats::default() },
            ranges: vec![range("lab-1", None), range("vm", Some("127.0.0.1:9"))],
            transfers: vec![Transfer {
                id: TransferId::Ingest(4),
                started: UNIX_EPOCH,
                bytes: 2048,
                kind: ingest,
            }],
        }
    }

    #[test]
    fn people_see_what_is_known_and_what_is_not() {
        let text = state().text();
        for line in [
            "agent    1.2.3 does not serve, up 0.0 s",
            "engine   does not answer",
            "RANGE  WANTED  IN STEP  CONNECTIONS  TCP",
            "lab-1       1  ?                  2  -",
            "vm          1  ?                  2  127.0.0.1:9",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
        }
        assert!(text.contains("ingest-4  the store  sha256:"), "{text}");
    }

    #[test]
    fn programs_see_the_same() {
        let value = state().json();
        assert_eq!(value["serving"], false);
        assert_eq!(value["engine"], Value::Null);
        assert_eq!(value["ranges"][1]["tcp"], "127.0.0.1:9");
        assert_eq!(value["ranges"][0]["in_step"], Value::Null);
        assert_eq!(value["transfers"][0]["id"], "ingest-4");
        assert_eq!(value["transfers"][0]["digest"], Digest::of(b"layer").to_string());
    }
}
