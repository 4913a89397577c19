//! One image that a caller reads in two forms at once.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use control::lending::{AllImages, ImageName, Loan};
use transfer::fixture::descriptor_of;
use transfer::store::MemoryStore;
use transfer::{
    BlobError, BlobSource, BlobStream, Digest, Image, ImageKey, ImageSource, ImageSummary,
    LayerForm, OpenImage, Reference, SourceError,
};

use crate::pipe::{image_of, library, range};

/// An image whose one layer is available compressed and uncompressed, and the doubts about it.
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

    async fn open(&self, _: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let blobs = Doubted { store: self.store.clone(), doubted: self.doubted.clone() };
        Ok(OpenImage { image: self.of(form).clone(), blobs: Arc::new(blobs) })
    }
}

/// Blobs, and a note of each that was doubted.
struct Doubted {
    store: MemoryStore,
    doubted: Arc<Mutex<Vec<Digest>>>,
}

#[async_trait]
impl BlobSource for Doubted {
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
async fn an_image_in_two_forms_is_two_images_for_a_lender() {
    let images = TwoForms::new();
    let library = library(Arc::new(images.clone()), Arc::new(AllImages));
    let (caller, config_digest) = (range("a"), images.packed.config_digest);
    let ask = async |form| {
        let name = ImageName::Key(config_digest.into());
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
    assert_eq!(ask(forms[0]).await, loans[0], "a living lease is kept");
    assert!(images.doubted.lock().unwrap().is_empty(), "asking again is no doubt");
    library.doubt(&caller, &loans[0], &forms.map(layer)).unwrap();
    assert_eq!(*images.doubted.lock().unwrap(), [layer(forms[0])], "only its own blobs");
    // A lease reads what it is on: the other form's layer is no part of it.
    let foreign = library.open(&caller, &loans[0], &layer(forms[1]), 0).await;
    assert!(foreign.is_err());

    library.forget(&caller);
    for (loan, form) in loans.iter().zip(forms) {
        assert!(library.open(&caller, loan, &layer(form), 0).await.is_err(), "{form:?} is kept");
    }
}
