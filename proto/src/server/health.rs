//! Health of this agent for grpc.health.v1: one answer for the whole and each service.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

/// An agent's health; all listeners tell the same.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: &'static [&'static str],
}

impl Health {
    /// The health of an agent with these services, which does not serve yet.
    pub async fn not_serving(services: &'static [&'static str]) -> Self {
        let health = Self { reporter: HealthReporter::new(), services };
        health.set(false).await;
        health
    }

    /// Tells from now on whether the agent serves.
    pub async fn set(&self, serving: bool) {
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.reporter.set_service_status("", status).await;
        for service in self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }

    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }
}
