//! Blobs of a remote image, whole in spite of what breaks on the way.
//!
//! ```text
//!            bytes                            all bytes
//!   ┌────► Flowing ──────────────────────────────────────► end
//!   │         │ broken, or no byte for `stall`
//!   │         ▼
//!   └──── Reopening ◄─┐ pause     lease forgotten: another, for the same image
//!    at the   │       │
//!    offset   └───────┘  no new byte for `patience`, or an error that stays: gives up
//! ```
//!
//! The pieces are joined before they are verified, here or by the reader, who sees one stream or one
//! error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backon::BackoffBuilder as _;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status};
use transfer::verify::verify;
use transfer::{
    BlobError, BlobSource, BlobStream, Descriptor, Digest, Image, ImageKey, LayerForm, MediaType,
};

use super::calls::{Calls, Connection};
use super::pieces::{Pieces, malformed, read_blob};
use super::retry::{BRIEFLY, pauses, until_answered};
use crate::compress::USUAL_SPEED;
use crate::convert::blob::Wanted;
use crate::convert::{blob, status};
use crate::speed::is_worth_compressing;
use crate::wire::UNARY_DEADLINE;
use control::lending::Loan;

/// Less than this is not worth asking for once more, in bytes.
const WORTH_ASKING: u64 = 32 << 20;

/// The blobs of one image of a remote host, under the lease that came with it.
#[derive(Debug)]
pub(super) struct RemoteBlobs(Arc<Lent>);

/// An image as it was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) key: ImageKey,
    pub(super) form: LayerForm,
}

/// An image that the host lent.
#[derive(Debug)]
struct Lent {
    host: Arc<Calls>,
    asked: Asked,
    /// Of the image as it was given.
    target_digest: Digest,
    loan: Mutex<Loan>,
    /// Held while the image is asked for again, so that its streams ask once for all.
    renewing: tokio::sync::Mutex<()>,
}

impl RemoteBlobs {
    pub(super) fn new(host: Arc<Calls>, asked: Asked, image: &Image, loan: Loan) -> Self {
        let (target_digest, loan) = (image.target_digest(), Mutex::new(loan));
        Self(Arc::new(Lent { host, asked, target_digest, loan, renewing: Default::default() }))
    }
}

impl Lent {
    fn loan(&self) -> Loan {
        self.loan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the lease for a read of a blob, after reporting a doubt about the blob to the host.
    async fn loan_for(&self, digest: &Digest) -> Result<Loan, BlobError> {
        if !self.host.take_doubt(digest) {
            return Ok(self.loan());
        }
        let asked = self.ask_again(digest, Some(digest)).await;
        asked.inspect_err(|_| self.host.doubt(digest))
    }

    /// Another lease in place of one that the host forgot, which it does when it is restarted.
    async fn renewed(&self, lost: &Loan, digest: &Digest) -> Result<Loan, BlobError> {
        let _alone = self.renewing.lock().await;
        // Several streams of one image lose the lease together; the first asks for all.
        match self.loan() {
            now if now != *lost => Ok(now),
            _ => self.ask_again(digest, None).await,
        }
    }

    /// Asks for the image once more. The lease counts as lost when the image is another by now: the
    /// plan that was made for it is void then.
    async fn ask_again(
        &self,
        digest: &Digest,
        doubted: Option<&Digest>,
    ) -> Result<Loan, BlobError> {
        let Asked { key, form } = self.asked;
        let asked = self.host.image(&key, form, doubted).await;
        let (image, loan) = asked.map_err(|error| error.of_blob(*digest))?;
        if image.target_digest() != self.target_digest {
            return Err(BlobError::LeaseLost { digest: *digest });
        }
        *self.loan.lock().unwrap_or_else(PoisonError::into_inner) = loan.clone();
        Ok(loan)
    }

    /// The size of the blob, and its bytes from `offset` on, of however many streams it takes.
    async fn joined(
        self: &Arc<Self>,
        digest: &Digest,
        offset: u64,
    ) -> Result<(u64, BlobStream), BlobError> {
        let loan = self.loan_for(digest).await?;
        let mut reading = Reading {
            lent: self.clone(),
            loan,
            digest: *digest,
            offset,
            size: None,
            flowing: None,
            may_ask_anew: true,
            progressed: Instant::now(),
            pauses: pauses().build(),
        };
        let size = reading.reopen().await?;
        let joined = stream::try_unfold(reading, async |mut reading| {
            Ok(reading.next().await?.map(|frame| (frame, reading)))
        });
        Ok((size, joined.boxed()))
    }

    async fn ask(&self, loan: &Loan, digest: &Digest) -> Result<Option<u64>, Status> {
        let answer = until_answered(BRIEFLY, || async {
            let mut request = Request::new(blob::stat_wanted(loan, digest));
            request.set_timeout(UNARY_DEADLINE);
            self.host.blobs().stat_blobs(request).await
        });
        blob::stated(digest, answer.await?).map_err(malformed)
    }
}

#[async_trait]
impl BlobSource for RemoteBlobs {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        let lent = &self.0;
        let loan = lent.loan_for(digest).await?;
        let answer = match lent.ask(&loan, digest).await {
            Err(error) if status::is_lease_lost(&error) => {
                lent.ask(&lent.renewed(&loan, digest).await?, digest).await
            }
            answer => answer,
        };
        answer.map_err(|error| status::to_blob_error(*digest, lent.host.failure(error)))
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        let (size, joined) = self.0.joined(digest, offset).await?;
        if offset != 0 {
            return Ok(joined);
        }
        let media_type = MediaType::new("application/octet-stream");
        Ok(verify(joined, &Descriptor { media_type, digest: *digest, size }))
    }

    async fn open_unverified(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        Ok(self.0.joined(digest, offset).await?.1)
    }

    /// Nothing is cached here, but the host sends the same bytes again until the doubt is reported.
    fn doubt(&self, digest: &Digest) {
        self.0.host.doubt(digest);
    }
}

/// A blob that is being read, over as many streams as it takes.
struct Reading {
    lent: Arc<Lent>,
    loan: Loan,
    digest: Digest,
    /// Offset of the next byte.
    offset: u64,
    /// The size of the blob, from the first stream on.
    size: Option<u64>,
    /// The stream under way, and its place in a connection; none when it has to be opened again.
    flowing: Option<(Pieces, Connection)>,
    /// True if a stream that turns out to be slow may be requested once more.
    may_ask_anew: bool,
    progressed: Instant,
    pauses: backon::ExponentialBackoff,
}

impl Reading {
    /// The next bytes; `None` when all were given.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        loop {
            if self.flowing.is_none() || self.is_worth_asking_anew() {
                self.reopen().await?;
            }
            match self.receive().await {
                Ok(Some(frame)) => return self.take(frame).map(Some),
                Ok(None) => return self.finish(),
                Err(status) => self.recover(status).await?,
            }
        }
    }

    /// Flowing → Reopening, once for each blob: its first bytes showed that the link is slow, and
    /// much is still to come. The host may compress it then.
    fn is_worth_asking_anew(&mut self) -> bool {
        let left = self.size.unwrap_or_default().saturating_sub(self.offset);
        if !self.may_ask_anew || left < WORTH_ASKING {
            return false;
        }
        let encoded = self.flowing.as_ref().is_some_and(|(pieces, _)| pieces.is_encoded());
        let pays = |link| is_worth_compressing(link, USUAL_SPEED);
        let anew = !encoded && self.lent.host.slow_link().is_some_and(pays);
        self.may_ask_anew = !anew;
        anew
    }

    /// Opens a stream at the offset, as often as it takes; the size of the blob.
    async fn reopen(&mut self) -> Result<u64, BlobError> {
        loop {
            match self.begin().await {
                Ok(size) if self.size.is_none_or(|known| known == size) => {
                    self.size = Some(size);
                    return Ok(size);
                }
                Ok(size) => {
                    let expected = self.size.unwrap_or_default();
                    let digest = self.digest;
                    return Err(BlobError::SizeMismatch { digest, expected, actual: size });
                }
                Err(status) => self.recover(status).await?,
            }
        }
    }

    async fn begin(&mut self) -> Result<u64, Status> {
        let link = self.lent.host.slow_link();
        let (loan, digest, offset) = (self.loan.clone(), self.digest, self.offset);
        let wanted = blob::read_wanted(&Wanted { loan, digest, offset, link });
        // Before the next is chosen, so that it may get the same place.
        self.flowing = None;
        let connection = self.lent.host.bulk();
        let begun = read_blob(connection.channel(), &wanted, self.lent.host.link.clone());
        let (size, pieces) = within(self.lent.host.manners.stall, begun).await?;
        // If the request already stated a link speed, a new one would say nothing more.
        self.may_ask_anew &= link.is_none();
        self.flowing = Some((pieces, connection));
        Ok(size)
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Status> {
        let stall = self.lent.host.manners.stall;
        let flowing = self.flowing.as_mut();
        let (pieces, _) = flowing.expect("a reading receives only while it has a stream");
        within(stall, pieces.next()).await
    }

    fn take(&mut self, frame: Bytes) -> Result<Bytes, BlobError> {
        self.offset += frame.len() as u64;
        if self.size.is_some_and(|size| size < self.offset) {
            return Err(self.size_mismatch());
        }
        self.progressed = Instant::now();
        self.pauses = pauses().build();
        Ok(frame)
    }

    fn finish(&self) -> Result<Option<Bytes>, BlobError> {
        if self.size.is_some_and(|size| size != self.offset) {
            return Err(self.size_mismatch());
        }
        Ok(None)
    }

    fn size_mismatch(&self) -> BlobError {
        let expected = self.size.unwrap_or_default();
        BlobError::SizeMismatch { digest: self.digest, expected, actual: self.offset }
    }

    /// Flowing → Reopening: waits for the next attempt, or says why there is none.
    async fn recover(&mut self, status: Status) -> Result<(), BlobError> {
        self.flowing = None;
        let digest = self.digest;
        let manners = &self.lent.host.manners;
        // A host that is busy lives, and comes to us in turn.
        let is_busy = status::is_busy(&status);
        let patience = if is_busy { manners.image_deadline } else { manners.patience };
        if patience <= self.progressed.elapsed() {
            return Err(status::to_blob_error(digest, self.lent.host.failure(status)));
        }
        if status::is_lease_lost(&status) {
            self.loan = self.lent.renewed(&self.loan, &digest).await?;
        } else if !status::is_transient(&status) {
            return Err(status::to_blob_error(digest, self.lent.host.failure(status)));
        }
        tracing::debug!(blob.digest = %digest, offset = self.offset, %status, "reading again");
        sleep(self.pauses.next().unwrap_or(Duration::from_secs(1))).await;
        Ok(())
    }
}

async fn within<T>(
    stall: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let stalled = || Status::unavailable(format!("no byte came for {} s", stall.as_secs()));
    timeout(stall, call).await.unwrap_or_else(|_elapsed| Err(stalled()))
}
