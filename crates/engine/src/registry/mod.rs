//! A registry with the read side of the distribution API, for the engine of one machine: what an
//! [`ImageSource`](transfer::ImageSource) has, for `docker pull` and everybody else who speaks to
//! registries.
//!
//! ```text
//!   docker pull 127.0.0.1:5055/app:1        server.rs    loopback only, bounded connections
//!        │ GET /v2/app/manifests/1          request.rs   paths and ranges, strictly
//!        ▼                                  name.rs      which image a name means
//!      Shelf ── library.rs                  answer.rs    statuses, headers, bodies
//!                  │ resolve, image, blobs  refusal.rs   what is not given, and why
//!                  ▼
//!             ImageSource                   nothing is written: no request changes anything
//! ```
//!
//! Names, as they stand after the address:
//!
//! | in the request | means |
//! |---|---|
//! | `app` | `docker.io/library/app`, as everywhere |
//! | `team/app` | `docker.io/team/app` |
//! | `quay.io/team/app` | that image: a first part with a dot, or `localhost`, is a registry |
//! | `registry_5000/app` | `registry:5000/app`, where there is no `docker.io/registry_5000/app`: a repository's path cannot have a colon |
//! | `app` with `?ns=quay.io` | `quay.io/app`: so does an engine ask a mirror |
//!
//! An image is given as the source keeps it: its own manifest, under its index where it has one,
//! with the layers that they name; else the manifest of fixed layout over uncompressed layers.
//!
//! Spec: <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>.

mod answer;
mod library;
mod name;
mod refusal;
mod request;
mod server;
mod shelf;
mod stalled;

pub use server::{InvalidLoopback, Loopback, Registry};

pub(crate) use name::Repository;
pub(crate) use refusal::Refusal;
pub(crate) use request::ManifestName;
pub(crate) use shelf::{Blob, Document, Shelf, blob_of, document_of};

#[cfg(test)]
mod tests;
