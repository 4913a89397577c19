//! Asking a running agent whether it is well.

use std::time::Duration;

use anyhow::{Context as _, bail};
use proto::Endpoint;
use proto::client::is_serving;

/// Asks the agent at `endpoint`; `Ok` when it says within `limit` that it serves.
///
/// # Errors
/// It does not answer, or says that it does not serve.
pub async fn check(endpoint: &Endpoint, limit: Duration) -> anyhow::Result<()> {
    let answer = tokio::time::timeout(limit, is_serving(endpoint)).await.with_context(|| {
        format!("the agent at {endpoint} did not answer within {} ms", limit.as_millis())
    })?;
    if !answer? {
        bail!(
            "the agent at {endpoint} runs and does not serve yet; its log says what it waits for"
        );
    }
    Ok(())
}
