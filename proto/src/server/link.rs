//! `LinkService` over the host's end of links.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tonic::{Request, Response, Status, Streaming};

use crate::convert::link;
use crate::convert::status::{from_link_end, not_allowed};
use crate::wire::generated as pb;
use crate::wire::generated::link_service_server::LinkService;
use control::Caller;
use control::link::{FromRangeStream, LinkHost};

pub(super) struct Link {
    pub(super) caller: Caller,
    pub(super) host: Arc<dyn LinkHost>,
}

#[tonic::async_trait]
impl LinkService for Link {
    type AttachStream = BoxStream<'static, Result<pb::AttachResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<pb::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        // Authorization lets only ranges come here; which of them it is, only the caller says.
        let Caller::Range(range) = &self.caller else {
            return Err(not_allowed(&self.caller, "Attach"));
        };
        let messages = messages(request.into_inner());
        let answers = self.host.attach(range, messages).await.map_err(|e| from_link_end(&e))?;
        let answers = answers.map(|answer| match answer {
            Ok(message) => Ok(link::to_range(message)),
            Err(end) => Err(from_link_end(&end)),
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// The messages of a range. A connection that breaks ends them; a message that is not of the
/// protocol is the last, and an error.
fn messages(requests: Streaming<pb::AttachRequest>) -> FromRangeStream {
    let messages = stream::unfold(Some(requests), |requests| async {
        let mut requests = requests?;
        loop {
            let Ok(Some(request)) = requests.message().await else { return None };
            match link::said(request) {
                Ok(Some(message)) => return Some((Ok(message), Some(requests))),
                Ok(None) => {}
                Err(malformed) => return Some((Err(malformed.to_string()), None)),
            }
        }
    });
    messages.boxed()
}
