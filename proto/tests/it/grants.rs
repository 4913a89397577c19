//! Grants: an image that is not granted does not exist, and costs the host nothing.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use control::lending::{AllImages, ImageName, Loan};
use control::{Access, Caller, Library};
use futures::{StreamExt as _, TryStreamExt as _};
use proto::RemoteHost;
use transfer::fixture::{MemorySource, bytes, descriptor_of};
use transfer::{
    BlobError, BlobSource as _, Digest, Image, ImageKey, ImageSource, ImageSummary, LayerForm,
    MAX_FRAME, OpenImage, Reference, SourceError,
};

use crate::pipe::{LARGE, Served, image_of, lent, library, manners, range, services};

/// Each range may read the images with these names; anybody else all.
#[derive(Default)]
struct Named(RwLock<HashMap<Caller, HashSet<Reference>>>);

impl Named {
    fn set(&self, caller: &Caller, names: &[&str]) {
        let names = names.iter().map(|name| name.parse().unwrap()).collect();
        self.0.write().unwrap().insert(caller.clone(), names);
    }
}

impl Access for Named {
    fn may_read_all(&self, caller: &Caller) -> bool {
        !matches!(caller, Caller::Range(_))
    }

    fn may_read(&self, caller: &Caller, name: &Reference) -> bool {
        let all = self.0.read().unwrap();
        self.may_read_all(caller) || all.get(caller).is_some_and(|names| names.contains(name))
    }
}

/// Counts what it is asked for.
#[derive(Clone, Default)]
struct Counted {
    source: MemorySource,
    asked: Arc<AtomicUsize>,
}

impl Counted {
    fn count(&self) -> &MemorySource {
        self.asked.fetch_add(1, Ordering::Relaxed);
        &self.source
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl ImageSource for Counted {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.count().list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        self.count().resolve(reference).await
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        self.count().open(key, form).await
    }
}

/// A host with the images `mine:1` and `yours:1`, of which the range `a` was granted the first.
struct Site {
    source: Counted,
    access: Arc<Named>,
    library: Arc<Library>,
    mine: Image,
    yours: Image,
}

impl Site {
    async fn new() -> Self {
        let source = Counted::default();
        let insert = |name: &str, seed: u64| {
            let blob = bytes(seed, 4 * MAX_FRAME);
            let image = image_of(std::slice::from_ref(&blob));
            source.source.insert(name, (image.clone(), vec![(descriptor_of(&blob), blob)]));
            image
        };
        let (mine, yours) = (insert("mine:1", 1), insert("yours:1", 2));
        let access = Arc::new(Named::default());
        access.set(&range("a"), &["mine:1"]);
        let library = library(Arc::new(source.clone()), access.clone());
        library.learn_names(&source.source.list().await.unwrap());
        Self { source, access, library, mine, yours }
    }

    /// The host as the range sees it, on connections of its own.
    async fn host(&self) -> (Served, RemoteHost) {
        let served = Served::new(services(range("a"), self.library.clone()).await, LARGE);
        let host = RemoteHost::new(served.endpoint(), manners());
        (served, host)
    }

    /// Result of an answer, and its size in bytes.
    async fn answer<T>(
        &self,
        ask: impl AsyncFn(&RemoteHost) -> Result<T, SourceError>,
    ) -> (String, u64) {
        let before = self.source.asked();
        let (served, host) = self.host().await;
        let error = ask(&host).await.map(drop).unwrap_err();
        assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
        assert_eq!(self.source.asked(), before, "the source was asked");
        (format!("{error:?} {error}"), served.moved())
    }
}

#[tokio::test]
async fn what_is_not_granted_answers_as_what_does_not_exist_and_asks_the_source_for_nothing() {
    let site = Site::new().await;
    let absent = image_of(&[bytes(3, 10)]);
    // By reference: names of one length, so that the answers can be compared byte for byte.
    let by_name = async |name: &str| {
        let resolved = site.answer(async |host| host.resolve(&name.parse().unwrap()).await).await;
        (resolved.0.replace(name, "?"), resolved.1)
    };
    assert_eq!(by_name("yours:1").await, by_name("nones:1").await);
    // By digest, with and without the target.
    let by_digest = async |image: &Image| {
        let target_digest = Some(image.target_digest());
        let keys = [
            ImageKey { config_digest: image.config_digest, target_digest: None },
            ImageKey { config_digest: image.config_digest, target_digest },
        ];
        let mut answers = Vec::new();
        for key in keys {
            let answer = site.answer(async |host| host.open(&key, LayerForm::AsStored).await).await;
            answers.push((answer.0.replace(&image.config_digest.to_string(), "?"), answer.1));
        }
        answers
    };
    assert_eq!(by_digest(&site.yours).await, by_digest(&absent).await);
    // By a name that is fixed by a digest.
    let pinned = |image: &Image| format!("yours@{}", image.target_digest());
    let (hidden, none) = (pinned(&site.yours), pinned(&absent));
    let hidden_answer =
        site.answer(async |host| host.resolve(&hidden.parse().unwrap()).await).await;
    let none_answer = site.answer(async |host| host.resolve(&none.parse().unwrap()).await).await;
    assert_eq!(hidden_answer.0.replace(&hidden, "?"), none_answer.0.replace(&none, "?"));
    assert_eq!(hidden_answer.1, none_answer.1);

    // Stat and read: no lease is had without the image, and another's is none.
    let (_served, host) = site.host().await;
    let own = lent(&host, &site.mine).await;
    for image in [&site.yours, &absent] {
        let foreign = image.layers[0].blob.digest;
        assert_eq!(own.stat(&foreign).await.unwrap(), None);
        let error = own.open(&foreign, 0).await.map(drop).unwrap_err();
        assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
    }
    let loan = Loan { config_digest: site.yours.config_digest, lease_id: "guessed".into() };
    let digest = site.yours.layers[0].blob.digest;
    let error = site.library.stat(&range("a"), &loan, &digest).await.unwrap_err();
    assert!(matches!(error, BlobError::LeaseLost { .. }), "{error:?}");
}

#[tokio::test]
async fn a_list_has_what_is_granted_by_the_names_that_are() {
    let site = Site::new().await;
    // A second name of an image is not granted with the first.
    let blob = bytes(1, 4 * MAX_FRAME);
    site.source.source.insert("secret:1", (site.mine.clone(), vec![(descriptor_of(&blob), blob)]));
    let (_served, host) = site.host().await;
    let listed = host.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].references, ["mine:1".parse().unwrap()]);
    let resolved = host.resolve(&"mine:1".parse().unwrap()).await.unwrap();
    assert_eq!(resolved.references, ["mine:1".parse().unwrap()]);
    let everything = site.library.list(&Caller::Admin).await.unwrap();
    assert_eq!(everything.len(), 2);
    assert_eq!(everything.iter().flat_map(|it| &it.references).count(), 3);
}

#[tokio::test]
async fn before_the_images_are_listed_a_digest_is_neither_granted_nor_absent() {
    let site = Site::new().await;
    let fresh = library(Arc::new(site.source.clone()), site.access.clone());
    let ask = async |library: &Library, caller: &Caller, image: &Image| {
        let name = ImageName::Key(image.config_digest.into());
        library.image(caller, &name, LayerForm::AsStored).await.map(drop)
    };
    let absent = image_of(&[bytes(3, 10)]);
    for image in [&site.mine, &site.yours, &absent] {
        let error = ask(&fresh, &range("a"), image).await.unwrap_err();
        assert!(matches!(error, SourceError::Unavailable { .. }), "{error:?}");
    }
    assert!(ask(&fresh, &Caller::Admin, &site.yours).await.is_ok());
    // Resolving the name is enough.
    fresh.resolve(&range("a"), &"mine:1".parse().unwrap()).await.unwrap();
    assert!(ask(&fresh, &range("a"), &site.mine).await.is_ok());
}

#[tokio::test]
async fn a_grant_that_is_taken_away_ends_a_read_at_its_next_frame() {
    let site = Site::new().await;
    let caller = range("a");
    let name = ImageName::Reference("mine:1".parse().unwrap());
    let (image, lease) = site.library.image(&caller, &name, LayerForm::AsStored).await.unwrap();
    let loan = Loan { config_digest: image.config_digest, lease_id: lease.id };
    let digest = image.layers[0].blob.digest;
    let mut opened = site.library.open(&caller, &loan, &digest, 0).await.unwrap();
    assert!(opened.frames.next().await.unwrap().is_ok());

    site.access.set(&caller, &["mine:2"]);
    site.library.grants_changed(&caller);
    let rest: Vec<_> = opened.frames.collect().await;
    assert!(matches!(rest.as_slice(), [Err(BlobError::NotFound { .. })]), "{rest:?}");
    let error = site.library.open(&caller, &loan, &digest, 0).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("lease"), "{error:?}");
    let error = site.library.image(&caller, &name, LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");

    // Others read on, and a grant that comes back is one.
    site.access.set(&caller, &["mine:1"]);
    site.library.grants_changed(&caller);
    assert!(site.library.image(&caller, &name, LayerForm::AsStored).await.is_ok());
}

#[tokio::test]
async fn a_revoked_read_ends_over_the_wire_and_another_range_reads_on() {
    let site = Site::new().await;
    site.access.set(&range("b"), &["mine:1"]);
    let (_served, host) = site.host().await;
    let served = Served::new(services(range("b"), site.library.clone()).await, LARGE);
    let other = RemoteHost::new(served.endpoint(), manners());
    let digest = site.mine.layers[0].blob.digest;
    let mine = lent(&host, &site.mine).await;
    let theirs = lent(&other, &site.mine).await;
    let mut ending = mine.open(&digest, 0).await.unwrap();
    let reading_on = theirs.open(&digest, 0).await.unwrap();
    assert!(ending.next().await.unwrap().is_ok());
    site.access.set(&range("a"), &[]);
    site.library.grants_changed(&range("a"));
    let rest: Result<Vec<Bytes>, _> = ending.try_collect().await;
    // Bytes under way already may still arrive whole: the window is larger than the blob.
    if let Err(error) = rest {
        assert!(matches!(error, BlobError::NotFound { .. }), "{error:?}");
    }
    let error = host.open(&site.mine.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }), "{error:?}");
    let read: Vec<Bytes> = reading_on.try_collect().await.unwrap();
    assert_eq!(Digest::of(&read.concat()), digest);
}

#[tokio::test]
async fn an_inspector_gets_no_config() {
    let site = Site::new().await;
    let all = library(Arc::new(site.source.clone()), Arc::new(AllImages));
    let served = Served::new(services(Caller::Inspector, all).await, LARGE);
    let host = RemoteHost::new(served.endpoint(), manners());
    assert_eq!(host.list().await.unwrap().len(), 2);
    let refused =
        host.open(&site.mine.config_digest.into(), LayerForm::AsStored).await.unwrap_err();
    let refused = transfer::explain(&refused);
    assert!(refused.contains("inspector may not call"), "{refused}");
}
