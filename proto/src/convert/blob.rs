//! Requests and answers of `BlobService`.

use bytes::Bytes;
use tonic::Status;
use transfer::{ConfigDigest, Digest};

use super::{Malformed, parse, status};
use crate::wire::MAX_DIGESTS;
use crate::wire::generated as pb;
use control::lending::Loan;

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

/// A validated `ReadBlob` request.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) loan: Loan,
    pub(crate) digest: Digest,
    /// Start offset in bytes.
    pub(crate) offset: u64,
    /// Speed of the caller's link in bytes per second; `None` if the bytes are to be sent
    /// uncompressed.
    pub(crate) link: Option<u64>,
}

pub(crate) fn read_request(request: pb::ReadBlobRequest) -> Result<Wanted, Status> {
    let loan = loan(&request.config_digest, request.lease_id)?;
    let digest = request.digest.parse().map_err(|error| status::invalid("digest", error))?;
    // An encoding that this version does not know is one that it will not choose.
    let takes_zstd = request.accept_encodings.contains(&(pb::Encoding::Zstd as i32));
    let link = request.link_bytes_per_second.filter(|_| takes_zstd);
    Ok(Wanted { loan, digest, offset: request.offset, link })
}

pub(crate) fn read_wanted(wanted: &Wanted) -> pb::ReadBlobRequest {
    let Wanted { loan, digest, offset, link } = wanted;
    pb::ReadBlobRequest {
        config_digest: loan.config_digest.to_string(),
        lease_id: loan.lease_id.clone(),
        digest: digest.to_string(),
        offset: *offset,
        accept_encodings: link.map(|_| pb::Encoding::Zstd as i32).into_iter().collect(),
        link_bytes_per_second: *link,
    }
}

/// The first message of a stream: how large the blob is, and how its bytes come.
pub(crate) fn head(blob_size: u64, encoding: pb::Encoding) -> pb::ReadBlobResponse {
    let encoding = encoding as i32;
    pb::ReadBlobResponse { data: Bytes::new(), blob_size: Some(blob_size), encoding }
}

/// Each further message.
pub(crate) fn piece(data: Bytes) -> pb::ReadBlobResponse {
    pb::ReadBlobResponse { data, ..Default::default() }
}
