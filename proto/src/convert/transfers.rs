//! Transfers under way, as pages.

use std::time::SystemTime;

use tonic::Status;

use super::page::Page;
use super::{Malformed, parse, parse_some};
use crate::wire::MAX_PAGE;
use crate::wire::generated as pb;
use control::transfers::{Transfer, TransferId, TransferKind};

pub(crate) fn request(request: &pb::ListTransfersRequest) -> Result<Page<TransferId>, Status> {
    Page::parse(request.page_size, &request.page_token)
}

pub(crate) fn response(
    page: &Page<TransferId>,
    transfers: Vec<Transfer>,
) -> pb::ListTransfersResponse {
    let (transfers, next_page_token) = page.cut(transfers, |transfer| transfer.id);
    pb::ListTransfersResponse {
        transfers: transfers.into_iter().map(Into::into).collect(),
        next_page_token,
    }
}

pub(crate) fn next(page_token: String) -> pb::ListTransfersRequest {
    pb::ListTransfersRequest { page_size: i32::try_from(MAX_PAGE).unwrap_or_default(), page_token }
}

/// The transfers of a page, and the token of the next; `None` when this was the last.
pub(crate) fn listed(
    response: pb::ListTransfersResponse,
) -> Result<(Vec<Transfer>, Option<String>), Malformed> {
    let mut transfers = Vec::with_capacity(response.transfers.len().min(MAX_PAGE));
    for transfer in response.transfers {
        // A kind that this version does not know is passed over as an unknown event is.
        if transfer.kind.is_some() {
            transfers.push(transfer.try_into()?);
        }
    }
    Ok((transfers, Some(response.next_page_token).filter(|token| !token.is_empty())))
}

impl From<Transfer> for pb::Transfer {
    fn from(transfer: Transfer) -> Self {
        use pb::transfer::Kind;
        let kind = match transfer.kind {
            TransferKind::Read { caller, config_digest, digest, size, offset } => {
                Kind::Read(pb::BlobRead {
                    caller,
                    config_digest: config_digest.to_string(),
                    digest: digest.to_string(),
                    size,
                    offset,
                })
            }
            TransferKind::Ingest { digest, size } => Kind::Ingest(pb::BlobIngest {
                digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
                size: size.unwrap_or_default(),
            }),
        };
        Self {
            id: transfer.id.to_string(),
            start_time: Some(transfer.started.into()),
            bytes: transfer.bytes,
            kind: Some(kind),
        }
    }
}

impl TryFrom<pb::Transfer> for Transfer {
    type Error = Malformed;

    fn try_from(transfer: pb::Transfer) -> Result<Self, Malformed> {
        use pb::transfer::Kind;
        let kind = match transfer.kind.ok_or(Malformed::absent("kind"))? {
            Kind::Read(read) => TransferKind::Read {
                caller: read.caller,
                config_digest: parse("config_digest", &read.config_digest)?,
                digest: parse("digest", &read.digest)?,
                size: read.size,
                offset: read.offset,
            },
            Kind::Ingest(ingest) => TransferKind::Ingest {
                digest: parse_some("digest", &ingest.digest)?,
                size: Some(ingest.size).filter(|size| *size != 0),
            },
        };
        let started = transfer.start_time.ok_or(Malformed::absent("start_time"))?;
        Ok(Self {
            id: parse("id", &transfer.id)?,
            started: SystemTime::try_from(started)
                .map_err(|error| Malformed::new("start_time", error))?,
            bytes: transfer.bytes,
            kind,
        })
    }
}
