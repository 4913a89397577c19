//! Client of grpc.health.v1.

use std::time::Duration;

use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::failure::RemoteError;
use crate::channel::Endpoint;
use crate::failure::Failure;

/// Deadline of a probe.
const DEADLINE: Duration = Duration::from_secs(5);

/// Returns true if the agent at `endpoint` serves. Asks once, since probing callers retry anyway.
///
/// # Errors
/// Any [`RemoteError`].
pub async fn is_serving(endpoint: &Endpoint) -> Result<bool, RemoteError> {
    let mut request = Request::new(HealthCheckRequest { service: String::new() });
    request.set_timeout(DEADLINE);
    let answer = HealthClient::new(endpoint.channel()).check(request).await.map_err(|status| {
        RemoteError::new(
            "asking the agent for its health",
            Failure::new(&endpoint.to_string(), status),
        )
    })?;
    Ok(answer.into_inner().status() == ServingStatus::Serving)
}
