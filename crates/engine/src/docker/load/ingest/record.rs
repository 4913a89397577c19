//! The documents of an image in containerd, and the record by which its engine knows it.

use bytes::Bytes;
use tonic::Code;
use transfer::{ChainId, Descriptor, DiffId, Image, MediaType};

use super::api::{self, Labels};
use super::blob::Content;
use super::client::Fault;
use super::error::IngestError;
use crate::docker::load::thin::published;
use crate::document::described;

/// Labels that lead containerd's collection from a blob to what it needs.
const REFERS_TO: &str = "containerd.io/gc.ref";

/// What the engine will call the image.
pub(super) fn target(image: &Image) -> Descriptor {
    match published(image) {
        Some(index) => described(index, MediaType::INDEX),
        None => described(&image.manifest, MediaType::MANIFEST),
    }
}

/// Takes an image's documents in, each with labels that lead to what it names.
pub(super) async fn documents(
    content: Content<'_>,
    image: &Image,
    snapshotter: &str,
) -> Result<(), IngestError> {
    let chain = ChainId::chain(&image.diff_ids().collect::<Vec<DiffId>>());
    let top =
        chain.last().map(|top| (format!("{REFERS_TO}.snapshot.{snapshotter}"), top.to_string()));
    let config = Descriptor::of(MediaType::CONFIG, &image.config);
    content.keep(&config, &image.config, top.into_iter().collect()).await?;

    let layers = image.layers.iter().map(|layer| layer.blob.digest).enumerate();
    let layers =
        layers.map(|(at, layer)| (format!("{REFERS_TO}.content.l.{at}"), layer.to_string()));
    let config = (format!("{REFERS_TO}.content.config"), config.digest.to_string());
    let manifest = described(&image.manifest, MediaType::MANIFEST);
    content.keep(&manifest, &image.manifest, layers.chain([config]).collect()).await?;

    let Some(index) = published(image) else { return Ok(()) };
    let labels = children(index).enumerate();
    let labels = labels.map(|(at, child)| (format!("{REFERS_TO}.content.m.{at}"), child));
    content.keep(&described(index, MediaType::INDEX), index, labels.collect()).await
}

/// The manifests of an index, those of other platforms too: a later pull may bring them.
fn children(index: &Bytes) -> impl Iterator<Item = String> {
    // An image is under an index that was parsed.
    let children = transfer::image::parse_index(index).unwrap_or_default();
    children.into_iter().map(|child| child.descriptor.digest.to_string())
}

/// Makes the image known to the engine, under the name that means none. One that it knows already,
/// by whatever name, stays as it is.
pub(super) async fn record(content: Content<'_>, target: &Descriptor) -> Result<(), Fault> {
    let filters = api::Filters { filters: vec![format!("target.digest=={}", target.digest)] };
    let known: api::Records = content.containerd.call(api::IMAGE_LIST, None, filters).await?;
    if !known.images.is_empty() {
        return Ok(());
    }
    create(content, target, Labels::new()).await
}

pub(super) async fn create(
    content: Content<'_>,
    target: &Descriptor,
    labels: Labels,
) -> Result<(), Fault> {
    let image = api::Record { name: unnamed(target), labels, target: Some(target.into()) };
    let request = api::OneRecord { image: Some(image) };
    let lease = content.lease.id().await?;
    match content.containerd.tell(api::IMAGE_CREATE, Some(&lease), request).await {
        Err(fault) if fault.code() == Some(Code::AlreadyExists) => Ok(()),
        created => created,
    }
}

/// The record of an image without a name, as the engine itself writes it.
pub(super) fn unnamed(target: &Descriptor) -> String {
    format!("moby-dangling@{}", target.digest)
}
