//! Requests and answers of `BlobService`.

use bytes::Bytes;
use tonic::Status;
use transfer::verify::check_frame;
use transfer::{ConfigDigest, Digest};

use super::{Malformed, parse, status};
use crate::library::Loan;
use crate::wire::MAX_DIGESTS;
use crate::wire::generated as pb;

/// Longest lease ID that is looked up; ours are shorter.
const MAX_LEASE_ID: usize = 64;

fn loan(config_digest: &str, lease_id: String) -> Result<Loan, Status> {
    let config_digest: ConfigDigest =
        config_digest.parse().map_err(|error| status::invalid("config_digest", error))?;
    match lease_id.len() {
        0 => Err(status::invalid("lease_id", "is empty: GetImage gives one")),
        1..=MAX_LEASE_ID => Ok(Loan { config_digest, lease_id }),
        _ => Err(status::invalid("lease_id", "is longer than any lease's")),
    }
}

pub(crate) fn stat_request(request: pb::StatBlobsRequest) -> Result<(Loan, Vec<Digest>), Status> {
    let loan = loan(&request.config_digest, request.lease_id)?;
    if !(1..=MAX_DIGESTS).contains(&request.digests.len()) {
        let reason = format!("has {} entries, not 1 to {MAX_DIGESTS}", request.digests.len());
        return Err(status::invalid("digests", reason));
    }
    let digests = request.digests.iter().map(|text| text.parse());
    let digests = digests.collect::<Result<_, _>>();
    Ok((loan, digests.map_err(|error| status::invalid("digests", error))?))
}

pub(crate) fn stat_response(sizes: &[(Digest, Option<u64>)]) -> pb::StatBlobsResponse {
    use pb::stat_blobs_response::Blob;
    let blobs = sizes.iter().map(|(digest, size)| Blob { digest: digest.to_string(), size: *size });
    pb::StatBlobsResponse { blobs: blobs.collect() }
}

pub(crate) fn stat_wanted(loan: &Loan, digest: &Digest) -> pb::StatBlobsRequest {
    pb::StatBlobsRequest {
        config_digest: loan.config_digest.to_string(),
        lease_id: loan.lease_id.clone(),
        digests: vec![digest.to_string()],
    }
}

/// The size of the one blob that was asked for.
pub(crate) fn stated(
    digest: &Digest,
    response: pb::StatBlobsResponse,
) -> Result<Option<u64>, Malformed> {
    let blob = response.blobs.into_iter().next().ok_or(Malformed::absent("blobs"))?;
    if parse("digest", &blob.digest) != Ok(*digest) {
        return Err(Malformed::new("digest", "is another than was asked for"));
    }
    Ok(blob.size)
}

pub(crate) fn read_request(request: pb::ReadBlobRequest) -> Result<(Loan, Digest, u64), Status> {
    let loan = loan(&request.config_digest, request.lease_id)?;
    let digest = request.digest.parse().map_err(|error| status::invalid("digest", error))?;
    Ok((loan, digest, request.offset))
}

pub(crate) fn read_wanted(loan: &Loan, digest: &Digest, offset: u64) -> pb::ReadBlobRequest {
    pb::ReadBlobRequest {
        config_digest: loan.config_digest.to_string(),
        lease_id: loan.lease_id.clone(),
        digest: digest.to_string(),
        offset,
    }
}

/// The first message of a stream: how large the blob is.
pub(crate) fn head(blob_size: u64) -> pb::ReadBlobResponse {
    pb::ReadBlobResponse { data: Bytes::new(), blob_size: Some(blob_size) }
}

/// Each further message.
pub(crate) fn piece(data: Bytes) -> pb::ReadBlobResponse {
    pb::ReadBlobResponse { data, blob_size: None }
}

/// What the first message says: the blob's size, and its first bytes where they came along.
pub(crate) fn begun(response: pb::ReadBlobResponse) -> Result<(u64, Option<Bytes>), Malformed> {
    let size = response.blob_size.ok_or(Malformed::absent("blob_size"))?;
    if response.data.is_empty() {
        return Ok((size, None));
    }
    frame(response.data).map(|frame| (size, Some(frame)))
}

/// The bytes of each further message.
pub(crate) fn moved(response: pb::ReadBlobResponse) -> Result<Bytes, Malformed> {
    frame(response.data)
}

fn frame(data: Bytes) -> Result<Bytes, Malformed> {
    match check_frame(&data) {
        Ok(()) => Ok(data),
        Err(bad_frame) => Err(Malformed::new("data", bad_frame)),
    }
}
