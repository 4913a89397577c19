//! Asking again: how often, how long, and when not.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use tonic::{Response, Status};

use crate::convert::status::is_transient;

/// Maximum time to retry a quick call: long enough for an agent that is restarting.
///
/// Not longer, since a missing agent should be reported at once.
pub(super) const BRIEFLY: Duration = Duration::from_secs(2);

/// The pauses between two attempts: short at first, random in part, so that many clients of one
/// agent do not come back together.
pub(super) fn pauses() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times()
}

/// Calls until there is an answer, an error that asking again does not change, or `patience` was
/// spent on pauses.
pub(super) async fn until_answered<T, F, R>(patience: Duration, call: F) -> Result<T, Status>
where
    F: FnMut() -> R,
    R: Future<Output = Result<Response<T>, Status>>,
{
    let pauses = pauses().with_total_delay(Some(patience));
    call.retry(pauses).when(is_transient).await.map(Response::into_inner)
}
