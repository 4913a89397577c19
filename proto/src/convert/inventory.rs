//! Requests and answers of `InventoryService`.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use tonic::Status;
use transfer::digest::InvalidDigest;
use transfer::{
    ConfigDigest, Digest, Image, ImageKey, ImageSummary, LayerForm, Reference, SourceError,
};

use super::page::Page;
use super::{Malformed, duration, elapsed, status};
use crate::failure::Failure;
use crate::wire::generated as pb;
use crate::wire::{MAX_DIGESTS, MAX_PAGE, MAX_REFERENCES};
use control::lending::{ImageName, LeaseGrant};

/// An image's place in a list, as a page token tells it: `CONFIG`, or `CONFIG@TARGET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(ImageKey);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ImageKey { config_digest, target_digest } = self.0;
        match target_digest {
            Some(target) => write!(f, "{config_digest}@{target}"),
            None => write!(f, "{config_digest}"),
        }
    }
}

impl FromStr for Place {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (config, target) = match text.split_once('@') {
            Some((config, target)) => (config, Some(target)),
            None => (text, None),
        };
        let target_digest = target.map(str::parse).transpose()?;
        Ok(Self(ImageKey { config_digest: config.parse()?, target_digest }))
    }
}

pub(crate) fn list_request(request: &pb::ListImagesRequest) -> Result<Page<Place>, Status> {
    Page::parse(request.page_size, &request.page_token)
}

pub(crate) fn list_response(
    page: &Page<Place>,
    images: Vec<ImageSummary>,
) -> pb::ListImagesResponse {
    let (images, next_page_token) = page.cut(images, |image| Place(image.key()));
    pb::ListImagesResponse { images: images.iter().map(Into::into).collect(), next_page_token }
}

pub(crate) fn next_page(page_token: String) -> pb::ListImagesRequest {
    pb::ListImagesRequest { page_size: i32::try_from(MAX_PAGE).unwrap_or_default(), page_token }
}

/// The images of a page, and the token of the next; `None` when this was the last.
pub(crate) fn listed(
    response: pb::ListImagesResponse,
) -> Result<(Vec<ImageSummary>, Option<String>), Malformed> {
    let images = response.images.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    Ok((images, Some(response.next_page_token).filter(|token| !token.is_empty())))
}

/// Checked request for an image: which one, in which form, and which of its blobs the caller
/// doubts.
pub(crate) fn image_request(
    request: pb::GetImageRequest,
) -> Result<(ImageName, LayerForm, Vec<Digest>), Status> {
    use pb::get_image_request::Name;
    let form = match request.layer_form() {
        pb::LayerForm::Unspecified | pb::LayerForm::AsStored => LayerForm::AsStored,
        pb::LayerForm::Uncompressed => LayerForm::Uncompressed,
    };
    let target_digest = Some(request.target_digest).filter(|text| !text.is_empty());
    let target_digest = target_digest.map(|text| text.parse()).transpose();
    let target_digest = target_digest.map_err(|error| status::invalid("target_digest", error))?;
    let name = match request.name {
        Some(Name::Reference(text)) => {
            text.parse().map(ImageName::Reference).map_err(|e| status::invalid("reference", e))
        }
        Some(Name::ConfigDigest(text)) => text
            .parse()
            .map(|config_digest| ImageName::Key(ImageKey { config_digest, target_digest }))
            .map_err(|e| status::invalid("config_digest", e)),
        None => Err(status::invalid("name", "is absent: give a reference or a config_digest")),
    };
    if MAX_DIGESTS < request.doubted.len() {
        let reason = format!("has {} entries, at most {MAX_DIGESTS}", request.doubted.len());
        return Err(status::invalid("doubted", reason));
    }
    let doubted = request.doubted.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    Ok((name?, form, doubted.map_err(|error| status::invalid("doubted", error))?))
}

pub(crate) fn image_response(image: &Image, lease: LeaseGrant) -> pb::GetImageResponse {
    pb::GetImageResponse { image: Some(image.into()), lease: Some(lease.into()) }
}

pub(crate) fn image_wanted(
    key: &ImageKey,
    form: LayerForm,
    doubted: Option<&Digest>,
) -> pb::GetImageRequest {
    let name = pb::get_image_request::Name::ConfigDigest(key.config_digest.to_string());
    let layer_form = match form {
        LayerForm::AsStored => pb::LayerForm::AsStored,
        LayerForm::Uncompressed => pb::LayerForm::Uncompressed,
    };
    pb::GetImageRequest {
        name: Some(name),
        layer_form: layer_form.into(),
        target_digest: key.target_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        doubted: doubted.iter().map(ToString::to_string).collect(),
    }
}

/// The image that was asked for, and the lease on it.
pub(crate) fn image_given(
    config_digest: &ConfigDigest,
    response: pb::GetImageResponse,
) -> Result<(Image, LeaseGrant), Malformed> {
    let image: Image = response.image.ok_or(Malformed::absent("image"))?.try_into()?;
    if image.config_digest != *config_digest {
        return Err(Malformed::new("image", "is another than was asked for"));
    }
    Ok((image, response.lease.ok_or(Malformed::absent("lease"))?.try_into()?))
}

impl From<LeaseGrant> for pb::Lease {
    fn from(lease: LeaseGrant) -> Self {
        Self {
            id: lease.id,
            ttl: Some(duration(lease.ttl)),
            expire_time: Some(lease.expires.into()),
        }
    }
}

impl TryFrom<pb::Lease> for LeaseGrant {
    type Error = Malformed;

    fn try_from(lease: pb::Lease) -> Result<Self, Malformed> {
        if lease.id.is_empty() {
            return Err(Malformed::absent("lease.id"));
        }
        let expires = lease.expire_time.ok_or(Malformed::absent("lease.expire_time"))?;
        let expires = SystemTime::try_from(expires)
            .map_err(|error| Malformed::new("lease.expire_time", error))?;
        Ok(Self { id: lease.id, ttl: elapsed(lease.ttl), expires })
    }
}

/// The references as they were written; each is parsed on its own, so that one that is none does
/// not fail the others.
pub(crate) fn resolve_request(request: pb::ResolveImagesRequest) -> Result<Vec<String>, Status> {
    match request.references.len() {
        0 => Err(status::invalid("references", "is empty")),
        1..=MAX_REFERENCES => Ok(request.references),
        many => {
            let reason = format!("has {many} entries, at most {MAX_REFERENCES} are allowed");
            Err(status::invalid("references", reason))
        }
    }
}

pub(crate) fn reference(text: &str) -> Result<Reference, Status> {
    text.parse().map_err(|error| status::invalid("references", error))
}

pub(crate) fn resolve_response(
    resolved: Vec<(String, Result<ImageSummary, Status>)>,
) -> pb::ResolveImagesResponse {
    use pb::resolve_images_response::{Resolution, resolution};
    let resolutions = resolved.into_iter().map(|(reference, result)| Resolution {
        reference,
        result: Some(match result {
            Ok(image) => resolution::Result::Image((&image).into()),
            Err(error) => resolution::Result::Error(status::to_message(&error)),
        }),
    });
    pb::ResolveImagesResponse { resolutions: resolutions.collect() }
}

pub(crate) fn resolve_wanted(references: &[Reference]) -> pb::ResolveImagesRequest {
    let references = references.iter().map(ToString::to_string).collect();
    pb::ResolveImagesRequest { references }
}

/// Resolutions of the requested references, in their order.
pub(crate) fn resolved(
    endpoint: &str,
    references: &[Reference],
    response: pb::ResolveImagesResponse,
) -> Vec<Result<ImageSummary, SourceError>> {
    use pb::resolve_images_response::resolution;
    let mut resolutions = response.resolutions.into_iter();
    let resolved = references.iter().map(|reference| {
        let malformed = |error| SourceError::unavailable(reference, error);
        let told = resolutions.next().filter(|told| told.reference == reference.to_string());
        let result = told.and_then(|told| told.result);
        match result.ok_or_else(|| malformed(Malformed::absent("resolutions")))? {
            resolution::Result::Image(image) => image.try_into().map_err(malformed),
            resolution::Result::Error(error) => {
                let failure = Failure::new(endpoint, status::from_message(error));
                Err(status::to_source_error(&reference.to_string(), failure))
            }
        }
    });
    resolved.collect()
}
