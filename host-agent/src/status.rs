//! `status`: state of a running agent, for people and for programs.

use anyhow::Context as _;
use process::exit::Exit;
use process::host::HostState;
use process::output::{Format, print};
use proto::Endpoint;
use tokio::time::timeout;

use crate::config::Status;
use crate::state::admin_socket;

/// Prints the agent's state. [`Exit::SomeFailed`] when it runs and does not serve.
///
/// # Errors
/// It does not answer.
pub(crate) async fn status(config: Status) -> anyhow::Result<Exit> {
    let endpoint = Endpoint::unix(admin_socket(&config.state_dir));
    let state = timeout(config.timeout, HostState::ask(&endpoint)).await.with_context(|| {
        format!("the host agent did not answer within {} ms", config.timeout.as_millis())
    })?;
    let state = state.with_context(|| {
        format!("is the host agent with the state folder {} running?", config.state_dir.display())
    })?;
    print(&match config.format {
        Format::Table => state.text(),
        Format::Json => format!("{}\n", state.json()),
    })?;
    Ok(if state.serving { Exit::Ok } else { Exit::SomeFailed })
}
