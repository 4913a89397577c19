//! One image that a caller reads in two forms at once.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use proto::library::{AllImages, ImageName, Loan};
use transfer::fixture::descriptor_of;
use transfer::store::MemoryStore;
use transfer::{
    BlobError, BlobSource, BlobStream, ConfigDigest, Digest, Image, ImageSource, ImageSummary,
    LayerForm, Reference, SourceError,
};

use crate::pipe::{image_of, library, range};

/// An image whose one layer there is packed and unpacked, and what was doubted of it.
#[derive(Clone)]
struct TwoForms {
    packed: Image,
    unpacked: Image,
    store: MemoryStore,
    doubted: Arc<Mutex<Vec<Digest>>>,
}

impl TwoForms {
    fn new() -> Self {
        let (packed_layer, layer) = (Bytes::from("packed"), Bytes::from("unpacked"));
        let unpacked = image_of(std::slice::from_ref(&layer));
        let mut packed = unpacked.clone();
        packed.layers[0].blob.digest = descriptor_of(&packed_layer).digest;
        packed.manifest = Bytes::from("another");
        packed.manifest_digest = Digest::of(&packed.manifest);
        let store = MemoryStore::default();
        store.insert(packed_layer);
        store.insert(layer);
        Self { packed, unpacked, store, doubted: Arc::default() }
    }

    fn of(&self, form: LayerForm) -> &Image {
        match form {
            LayerForm::AsStored => &self.packed,
            LayerForm::Uncompressed => &self.unpacked,
        }
    }
}

#[async_trait]
impl ImageSource for TwoForms {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        Ok(Vec::new())
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        Err(SourceError::NotFound { image: reference.to_string() })
    }

    async fn image(&self, _: &ConfigDigest, form: LayerForm) -> Result<Image, SourceError> {
        Ok(self.of(form).clone())
    }

    fn blobs(&self, _: &ConfigDigest) -> Arc<dyn BlobSource> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl BlobSource for TwoForms {
    async fn stat(&self, digest: &Digest) -> Result<Option<u64>, BlobError> {
        self.store.stat(digest).await
    }

    async fn open(&self, digest: &Digest, offset: u64) -> Result<BlobStream, BlobError> {
        self.store.open(digest, offset).await
    }

    fn doubt(&self, digest: &Digest) {
        self.doubted.lock().unwrap().push(*digest);
    }
}

#[tokio::test]
async fn an_image_in_two_forms_is_lent_and_doubted_in_each_by_itself() {
    let images = TwoForms::new();
    let library = library(Arc::new(images.clone()), Arc::new(AllImages));
    let (caller, config_digest) = (range("a"), images.packed.config_digest);
    let ask = async |form| {
        let name = ImageName::Config(config_digest);
        let (_, lease) = library.image(&caller, &name, form).await.unwrap();
        Loan { config_digest, lease_id: lease.id }
    };
    let layer = |form| images.of(form).layers[0].blob.digest;
    let read = async |loan: &Loan, form| {
        library.open(&caller, loan, &layer(form), 0).await.map(drop).unwrap();
    };
    let forms = [LayerForm::AsStored, LayerForm::Uncompressed];
    let loans = [ask(forms[0]).await, ask(forms[1]).await];
    assert_ne!(loans[0], loans[1], "one lease for two forms");
    for (loan, form) in loans.iter().zip(forms) {
        read(loan, form).await;
    }
    assert!(images.doubted.lock().unwrap().is_empty(), "the other form was asked for, not this");

    assert_eq!(ask(forms[0]).await, loans[0]);
    assert_eq!(*images.doubted.lock().unwrap(), [layer(forms[0])]);
    // A lease reads what it is on: the other form's layer is no part of it.
    let foreign = library.open(&caller, &loans[0], &layer(forms[1]), 0).await;
    assert!(foreign.is_err());

    library.forget(&caller);
    for (loan, form) in loans.iter().zip(forms) {
        assert!(library.open(&caller, loan, &layer(form), 0).await.is_err(), "{form:?} is kept");
    }
}
