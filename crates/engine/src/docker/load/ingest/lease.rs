//! What an ingest has made so far is kept from containerd's collection by a lease.
//!
//! ```text
//!   take ─► blobs, snapshots, image record ─► end
//!     └► killed: it expires; the next ingest of the image goes on with what it holds, and ends it
//! ```

use std::time::{Duration, Instant, SystemTime};

use prost_types::Timestamp;
use tokio::sync::Mutex;
use transfer::Digest;

use super::api;
use super::client::{Containerd, Fault};

/// When containerd drops what nobody came back for.
const EXPIRY: Duration = Duration::from_secs(6 * 3600);

/// The age from which on a lease is followed by another. A single blob or layer may take as long as
/// the difference to [`EXPIRY`].
const RENEWAL: Duration = Duration::from_secs(2 * 3600);

/// The label that says which image a lease is for.
const IMAGE: &str = "dev.longshore.image";

/// The label by which containerd itself lets go of things.
pub(super) const EXPIRES: &str = "containerd.io/gc.expire";

/// A lease for one image.
#[derive(Debug)]
pub(super) struct Lease {
    containerd: Containerd,
    image: Digest,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    id: String,
    born: Instant,
}

impl Lease {
    /// Takes a lease for the image with this target.
    pub(super) async fn take(containerd: &Containerd, image: Digest) -> Result<Self, Fault> {
        let current = create(containerd, image).await?;
        let containerd = containerd.clone();
        Ok(Self { containerd, image, current: Mutex::new(current) })
    }

    /// Its ID, for the next call. One that has grown old is followed by another that holds the same.
    pub(super) async fn id(&self) -> Result<String, Fault> {
        let mut current = self.current.lock().await;
        if RENEWAL < current.born.elapsed() {
            *current = self.follow(&current.id).await?;
        }
        Ok(current.id.clone())
    }

    /// Another lease with everything that `old` holds, which may still be in use and expires.
    async fn follow(&self, old: &str) -> Result<Current, Fault> {
        let next = create(&self.containerd, self.image).await?;
        let name = api::LeaseName { id: old.to_owned() };
        let held: api::Resources = self.containerd.call(api::LEASE_HOLDS, None, name).await?;
        for resource in held.resources {
            let request = api::LeaseResource { id: next.id.clone(), resource: Some(resource) };
            self.containerd.tell(api::LEASE_ADD, None, request).await?;
        }
        Ok(next)
    }

    /// Holds one more thing that is there already.
    pub(super) async fn hold(&self, kind: String, id: String) -> Result<(), Fault> {
        let resource = Some(api::Resource { id, kind });
        let request = api::LeaseResource { id: self.id().await?, resource };
        self.containerd.tell(api::LEASE_ADD, None, request).await
    }

    /// Lets go of everything, and of what earlier ingests of the image left when they were killed.
    /// What is part of an image by now stays with that.
    pub(super) async fn end(self) -> Result<(), Fault> {
        let filter = format!("labels.\"{IMAGE}\"=={}", self.image);
        let request = api::Filters { filters: vec![filter] };
        let found: api::Leases = self.containerd.call(api::LEASE_LIST, None, request).await?;
        for lease in found.leases {
            match self.containerd.tell(api::LEASE_DELETE, None, lease).await {
                Err(fault) if fault.code() != Some(tonic::Code::NotFound) => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }
}

async fn create(containerd: &Containerd, image: Digest) -> Result<Current, Fault> {
    let request = api::LeaseRequest {
        id: format!("longshore-{}", once()),
        labels: [(EXPIRES.into(), later(EXPIRY)), (IMAGE.into(), image.to_string())].into(),
    };
    let id = request.id.clone();
    containerd.tell(api::LEASE_CREATE, None, request).await?;
    Ok(Current { id, born: Instant::now() })
}

/// The time so much later, as containerd's labels have it.
pub(super) fn later(wait: Duration) -> String {
    Timestamp::from(SystemTime::now() + wait).to_string()
}

/// A text that nobody made before on this machine.
pub(super) fn once() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-{next}", now.as_nanos(), std::process::id())
}
