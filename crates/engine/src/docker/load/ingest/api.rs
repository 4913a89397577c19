//! The messages of containerd's API that an ingest needs, field by field as they are declared there.
//!
//! Spec: `services/{content,leases,snapshots,diff,images}/v1` and `types` below
//! <https://github.com/containerd/containerd/tree/v2.1.4/api>.

use std::collections::HashMap;

use bytes::Bytes;
use prost_types::FieldMask;

pub(super) const WRITE: &str = "/containerd.services.content.v1.Content/Write";
pub(super) const INFO: &str = "/containerd.services.content.v1.Content/Info";
pub(super) const UPDATE: &str = "/containerd.services.content.v1.Content/Update";
pub(super) const ABORT: &str = "/containerd.services.content.v1.Content/Abort";
pub(super) const LEASE_CREATE: &str = "/containerd.services.leases.v1.Leases/Create";
pub(super) const LEASE_DELETE: &str = "/containerd.services.leases.v1.Leases/Delete";
pub(super) const LEASE_LIST: &str = "/containerd.services.leases.v1.Leases/List";
pub(super) const LEASE_ADD: &str = "/containerd.services.leases.v1.Leases/AddResource";
pub(super) const LEASE_HOLDS: &str = "/containerd.services.leases.v1.Leases/ListResources";
pub(super) const PREPARE: &str = "/containerd.services.snapshots.v1.Snapshots/Prepare";
pub(super) const COMMIT: &str = "/containerd.services.snapshots.v1.Snapshots/Commit";
pub(super) const REMOVE: &str = "/containerd.services.snapshots.v1.Snapshots/Remove";
pub(super) const STAT: &str = "/containerd.services.snapshots.v1.Snapshots/Stat";
pub(super) const APPLY: &str = "/containerd.services.diff.v1.Diff/Apply";
pub(super) const IMAGE_LIST: &str = "/containerd.services.images.v1.Images/List";
pub(super) const IMAGE_CREATE: &str = "/containerd.services.images.v1.Images/Create";
pub(super) const IMAGE_DELETE: &str = "/containerd.services.images.v1.Images/Delete";

/// Labels of any object.
pub(super) type Labels = HashMap<String, String>;

/// An answer without anything that is looked at.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum WriteAction {
    Stat = 0,
    Write = 1,
    Commit = 2,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WriteRequest {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub(super) action: i32,
    #[prost(string, tag = "2")]
    pub(super) reference: String,
    #[prost(int64, tag = "3")]
    pub(super) total: i64,
    #[prost(string, tag = "4")]
    pub(super) expected: String,
    #[prost(int64, tag = "5")]
    pub(super) offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub(super) data: Bytes,
    #[prost(map = "string, string", tag = "7")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WriteResponse {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub(super) action: i32,
    #[prost(int64, tag = "4")]
    pub(super) offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InfoRequest {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Info {
    #[prost(string, tag = "1")]
    pub(super) digest: String,
    #[prost(map = "string, string", tag = "5")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UpdateRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) info: Option<Info>,
    #[prost(message, optional, tag = "2")]
    pub(super) update_mask: Option<FieldMask>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AbortRequest {
    #[prost(string, tag = "1")]
    pub(super) reference: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaseRequest {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(map = "string, string", tag = "3")]
    pub(super) labels: Labels,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaseName {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Filters {
    #[prost(string, repeated, tag = "1")]
    pub(super) filters: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Leases {
    #[prost(message, repeated, tag = "1")]
    pub(super) leases: Vec<LeaseName>,
}

/// What a lease holds: an ID, and a type like `content` or `snapshots/overlayfs`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) kind: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct LeaseResource {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resources {
    #[prost(message, repeated, tag = "1")]
    pub(super) resources: Vec<Resource>,
}

/// How a snapshot is mounted, as containerd itself sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mount {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) source: String,
    #[prost(string, tag = "3")]
    pub(super) target: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) options: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PrepareRequest {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) parent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Mounts {
    #[prost(message, repeated, tag = "1")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CommitRequest {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct SnapshotName {
    #[prost(string, tag = "1")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "2")]
    pub(super) key: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Descriptor {
    #[prost(string, tag = "1")]
    pub(super) media_type: String,
    #[prost(string, tag = "2")]
    pub(super) digest: String,
    #[prost(int64, tag = "3")]
    pub(super) size: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApplyRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub(super) mounts: Vec<Mount>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ApplyResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) applied: Option<Descriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(map = "string, string", tag = "2")]
    pub(super) labels: Labels,
    #[prost(message, optional, tag = "3")]
    pub(super) target: Option<Descriptor>,
}

/// A request or an answer about one image.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OneRecord {
    #[prost(message, optional, tag = "1")]
    pub(super) image: Option<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Records {
    #[prost(message, repeated, tag = "1")]
    pub(super) images: Vec<Record>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RecordName {
    #[prost(string, tag = "1")]
    pub(super) name: String,
}

impl From<&transfer::Descriptor> for Descriptor {
    fn from(descriptor: &transfer::Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.to_string(),
            digest: descriptor.digest.to_string(),
            size: signed(descriptor.size),
        }
    }
}

/// A size or an offset as containerd counts: no blob has more than an `i64` of bytes.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
