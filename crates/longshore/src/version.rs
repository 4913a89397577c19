//! `longshore version`: this program's version, and the host agent's.

use std::time::Duration;

use anyhow::Result;
use process::exit::Exit;
use process::output::print;
use proto::{AdminClient, Endpoint};

use crate::interrupt::interruptible;
use crate::site::{Setting, Site};

/// Maximum time for the host agent to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// Prints both.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn run(site: &Site) -> Result<Exit> {
    let address = site.text(Setting::HostAgent);
    let agent = interruptible(async {
        let Ok(endpoint) = address.parse::<Endpoint>() else { return Ok(None) };
        let admin = AdminClient::new(endpoint);
        let stats = tokio::time::timeout(ANSWERS_WITHIN, admin.stats()).await;
        Ok(stats.ok().and_then(Result::ok).map(|stats| stats.version))
    })?;
    let Some(agent) = agent else { return Ok(Exit::Interrupted) };
    let agent = agent.unwrap_or_else(|| "does not answer".to_owned());
    print(&format!(
        "longshore   {}\nhost agent  {agent} ({address})\n",
        env!("CARGO_PKG_VERSION")
    ))?;
    Ok(Exit::Ok)
}
