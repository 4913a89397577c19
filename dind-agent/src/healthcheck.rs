//! The command `healthcheck`: asks a running agent whether its range is well, and why not.

use anyhow::bail;
use control::range::{RangeStatus, Reach};
use process::exit::Exit;
use proto::{Endpoint, RangeClient};
use tokio::time::timeout;

use crate::config::Healthcheck;

/// Most images that one message names.
const NAMED: usize = 3;

/// Ends well when the range is.
///
/// # Errors
/// The agent does not answer, or the range is not well, for the reason given.
pub(crate) async fn healthcheck(config: Healthcheck) -> anyhow::Result<Exit> {
    let endpoint = Endpoint::unix(&config.listen);
    let Err(error) = process::health::check(&endpoint, config.timeout).await else {
        return Ok(Exit::Ok);
    };
    match timeout(config.timeout, RangeClient::new(endpoint).status()).await {
        Ok(Ok(status)) => bail!(reason(&status)),
        Ok(Err(_)) | Err(_) => Err(error),
    }
}

/// Reason why a range is unhealthy.
fn reason(status: &RangeStatus) -> String {
    match (&status.engine, status.lacking.as_slice()) {
        (Reach::Down(why), _) => format!("the range's engine does not answer: {why}"),
        (Reach::Unknown, _) => "the range's engine was not asked yet; wait a moment".into(),
        (Reach::Up(_), []) => "the range's agent is starting or ending; wait a moment".into(),
        (Reach::Up(_), lacking) => {
            let named = &lacking[..lacking.len().min(NAMED)];
            let more = if named.len() < lacking.len() { "; …" } else { "" };
            format!("not every wanted image is present: {}{more}", named.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use transfer::{EngineInfo, StoreKind};

    use super::*;

    #[test]
    fn a_reason_names_the_engine_or_the_images() {
        let info = EngineInfo {
            engine: "docker 28.5.2".into(),
            store: StoreKind::Containerd,
            driver: "overlayfs".into(),
            id: String::new(),
        };
        let check = |engine: Reach<EngineInfo>, lacking: &[&str], expected: &str| {
            let status = RangeStatus {
                agent_version: "1".into(),
                uptime: Duration::ZERO,
                engine,
                host: Reach::Unknown,
                syncs: 0,
                peak_rss_bytes: 0,
                wanted: 4,
                in_step: false,
                last_sync: None,
                engine_restarts: 0,
                lacking: lacking.iter().map(ToString::to_string).collect(),
            };
            assert_eq!(reason(&status), expected);
        };
        let down = Reach::Down("no such socket".into());
        check(down, &["a:1"], "the range's engine does not answer: no such socket");
        let up = || Reach::Up(info.clone());
        check(up(), &["a:1 failed: x"], "not every wanted image is present: a:1 failed: x");
        let four = ["a", "b", "c", "d"];
        check(up(), &four, "not every wanted image is present: a; b; c; …");
        check(up(), &[], "the range's agent is starting or ending; wait a moment");
    }
}
