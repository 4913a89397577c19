//! Images, their summaries, and engines.

use transfer::{EngineInfo, Image, ImageSummary, Layer, Platform, StoreKind};

use super::{Malformed, parse, parse_all, texts};
use crate::wire::generated as pb;

impl From<&Platform> for pb::Platform {
    fn from(platform: &Platform) -> Self {
        Self {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone().unwrap_or_default(),
        }
    }
}

impl From<pb::Platform> for Platform {
    fn from(platform: pb::Platform) -> Self {
        Self {
            os: platform.os,
            architecture: platform.architecture,
            variant: Some(platform.variant).filter(|variant| !variant.is_empty()),
        }
    }
}

impl From<&ImageSummary> for pb::ImageSummary {
    fn from(image: &ImageSummary) -> Self {
        Self {
            config_digest: image.config_digest.to_string(),
            references: texts(&image.references),
            diff_ids: texts(&image.diff_ids),
            unpacked_size: image.unpacked_size,
            platform: Some((&image.platform).into()),
            target_digest: image.target_digest.map(|it| it.to_string()).unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::ImageSummary> for ImageSummary {
    type Error = Malformed;

    fn try_from(image: pb::ImageSummary) -> Result<Self, Malformed> {
        let target_digest = Some(image.target_digest).filter(|digest| !digest.is_empty());
        Ok(Self {
            config_digest: parse("config_digest", &image.config_digest)?,
            target_digest: target_digest.map(|it| parse("target_digest", &it)).transpose()?,
            references: parse_all("references", &image.references)?,
            diff_ids: parse_all("diff_ids", &image.diff_ids)?,
            unpacked_size: image.unpacked_size,
            platform: image.platform.ok_or(Malformed::absent("platform"))?.into(),
        })
    }
}

impl From<&Layer> for pb::Layer {
    fn from(layer: &Layer) -> Self {
        Self {
            diff_id: layer.diff_id.to_string(),
            digest: layer.blob.digest.to_string(),
            size: layer.blob.size,
            media_type: layer.blob.media_type.to_string(),
        }
    }
}

impl From<&Image> for pb::Image {
    fn from(image: &Image) -> Self {
        Self {
            config_digest: image.config_digest.to_string(),
            manifest_digest: image.manifest_digest.to_string(),
            manifest: image.manifest.clone(),
            config: image.config.clone(),
            layers: image.layers.iter().map(Into::into).collect(),
            platform: Some((&image.platform).into()),
            index: image.index.clone().unwrap_or_default(),
        }
    }
}

/// An image is read from its documents: what the peer says of them must agree and counts for
/// nothing else.
impl TryFrom<pb::Image> for Image {
    type Error = Malformed;

    fn try_from(message: pb::Image) -> Result<Self, Malformed> {
        let image = Self::parse(message.manifest, message.config)
            .map_err(|error| Malformed::new("image", super::status::explain(&error)))?;
        if parse("manifest_digest", &message.manifest_digest) != Ok(image.manifest_digest) {
            return Err(Malformed::new("manifest_digest", "is not that of the manifest"));
        }
        if parse("config_digest", &message.config_digest) != Ok(image.config_digest) {
            return Err(Malformed::new("config_digest", "is not that of the config"));
        }
        if message.index.is_empty() {
            return Ok(image);
        }
        let under = image.under(message.index);
        under.map_err(|error| Malformed::new("index", super::status::explain(&error)))
    }
}

impl From<StoreKind> for pb::StoreKind {
    fn from(store: StoreKind) -> Self {
        match store {
            StoreKind::Graphdriver => Self::Graphdriver,
            StoreKind::Containerd => Self::Containerd,
        }
    }
}

impl From<EngineInfo> for pb::Engine {
    fn from(engine: EngineInfo) -> Self {
        Self {
            store: pb::StoreKind::from(engine.store).into(),
            engine: engine.engine,
            driver: engine.driver,
            id: engine.id,
        }
    }
}

impl TryFrom<pb::Engine> for EngineInfo {
    type Error = Malformed;

    fn try_from(engine: pb::Engine) -> Result<Self, Malformed> {
        let store = match engine.store() {
            pb::StoreKind::Graphdriver => StoreKind::Graphdriver,
            pb::StoreKind::Containerd => StoreKind::Containerd,
            pb::StoreKind::Unspecified => return Err(Malformed::absent("store")),
        };
        Ok(Self { store, engine: engine.engine, driver: engine.driver, id: engine.id })
    }
}
