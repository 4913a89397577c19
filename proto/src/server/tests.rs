//! A stranger with a generic client finds out all that there is.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;
use crate::channel::{Endpoint, Io};

/// A client of reflection, behind a pipe to `services`.
async fn ask(services: Services, requests: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let (pipes, accepted) = tokio::sync::mpsc::channel(1);
    let server = Server::on_pipes(accepted, services, Caps::default());
    let stop = tokio_util::sync::CancellationToken::new();
    let _running = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(server.run(stop)));
    let endpoint = Endpoint::dialled("pipe", move || {
        let (near, far) = tokio::io::duplex(1 << 16);
        let pipes = pipes.clone();
        async move {
            pipes.send(Box::new(far)).await.map_err(|_| std::io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(near) as Box<dyn Io>)
        }
    });
    let requests = requests.into_iter().map(|request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    });
    let requests = futures::stream::iter(requests.collect::<Vec<_>>());
    let mut client = ServerReflectionClient::new(endpoint.channel());
    let answers = client.server_reflection_info(requests).await.unwrap().into_inner();
    answers.map(|answer| answer.unwrap().message_response.unwrap()).collect().await
}

struct NoRange;

#[tonic::async_trait]
impl RangeControl for NoRange {
    async fn sync(
        &self,
        _: &Caller,
        _: Vec<transfer::Reference>,
    ) -> Result<
        futures::stream::BoxStream<'static, control::range::SyncEvent>,
        control::range::ControlError,
    > {
        Err(control::range::ControlError::Busy { limit: 0 })
    }

    async fn images(
        &self,
        _: &Caller,
    ) -> Result<Vec<control::range::RangeImage>, control::range::ControlError> {
        Err(control::range::ControlError::Busy { limit: 0 })
    }

    async fn plan(
        &self,
        _: &Caller,
        _: Vec<transfer::Reference>,
    ) -> Result<Vec<control::range::ImagePlan>, control::range::ControlError> {
        Err(control::range::ControlError::Busy { limit: 0 })
    }

    async fn verify(
        &self,
        _: &Caller,
        _: Vec<transfer::Reference>,
        _: bool,
    ) -> Result<
        futures::stream::BoxStream<'static, control::range::VerifyEvent>,
        control::range::ControlError,
    > {
        Err(control::range::ControlError::Busy { limit: 0 })
    }

    async fn status(&self, _: &Caller) -> control::range::RangeStatus {
        unreachable!("reflection asks for no status")
    }
}

#[tokio::test]
async fn a_stranger_finds_every_service_and_its_schema() {
    let health = Health::not_serving(&RANGE_SERVICES).await;
    let services = Services::of_range(Caller::Admin, Arc::new(NoRange), &health);
    let schema = MessageRequest::FileContainingSymbol(RANGE_SERVICES[0].into());
    let answers = ask(services, vec![MessageRequest::ListServices(String::new()), schema]).await;
    let [MessageResponse::ListServicesResponse(list), MessageResponse::FileDescriptorResponse(_)] =
        answers.as_slice()
    else {
        panic!("{answers:?}")
    };
    let names: BTreeSet<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["grpc.health.v1.Health", RANGE_SERVICES[0]]));
}
