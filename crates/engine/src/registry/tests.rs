//! The endpoint as clients see it, over a real connection.

use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;
use transfer::fixture::{self, MemorySource};
use transfer::{
    Descriptor, Digest, Image, ImageKey, ImageSource, ImageSummary, LayerForm, OpenImage,
    Reference, SourceError,
};

use super::*;

/// A registry over a source, for as long as it lives.
struct Served {
    address: Loopback,
    _task: AbortOnDropHandle<()>,
}

/// What came back, as it was sent.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The code of an error document.
    fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert!(document["errors"][0]["message"].is_string(), "{document}");
        document["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

impl Served {
    async fn of(source: impl ImageSource + 'static) -> Self {
        let source = std::sync::Arc::new(source);
        let registry = Registry::of_source(Loopback::port(0), source).await.unwrap();
        let address = registry.address();
        let task = tokio::spawn(registry.serve(std::future::pending()));
        Self { address, _task: AbortOnDropHandle::new(task) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address.to_string()).await.unwrap()
    }

    /// Sends `text` as it is, and reads until the connection ends.
    async fn raw(&self, text: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        // It may have been hung up on before it sent everything.
        drop(stream.write_all(text).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        answer
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        let answer = self.raw(text.as_bytes()).await;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{path}: {}", String::from_utf8_lossy(&answer)));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Answer { status, headers: headers.collect(), body: answer[end + 4..].to_vec() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }
}

type Made = (Image, Vec<(Descriptor, bytes::Bytes)>);

/// One image, under a name of each kind.
async fn one_image() -> (Served, Made) {
    let made = fixture::image(1, &[100, 3_000_000]);
    let source = MemorySource::default();
    for name in ["app:1", "app:2", "quay.io/team/app:1", "reg:5000/app:1"] {
        source.insert(name, made.clone());
    }
    (Served::of(source).await, made)
}

#[tokio::test]
async fn an_image_is_given_by_tag_and_by_digest_with_all_its_blobs() {
    let (registry, (image, blobs)) = one_image().await;
    let base = registry.get("/v2/").await;
    assert_eq!((base.status, base.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(base.header("docker-distribution-api-version"), Some("registry/2.0"));

    let digest = image.manifest_digest.to_string();
    for name in ["app", "library/app", "docker.io/library/app", "quay.io/team/app", "reg_5000/app"]
    {
        for reference in ["1", &digest] {
            let answer = registry.get(&format!("/v2/{name}/manifests/{reference}")).await;
            assert_eq!(answer.status, 200, "{name} {reference} {answer:?}");
            assert_eq!(answer.body, image.manifest, "{name} {reference}");
            assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()));
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            assert_eq!(answer.header("content-type"), Some(media_type));
        }
    }
    let mirrored = registry.get("/v2/team/app/manifests/1?ns=quay.io").await;
    assert_eq!(mirrored.body, image.manifest);

    let config = registry.get(&format!("/v2/app/blobs/{}", image.config_digest)).await;
    assert_eq!(config.body, image.config);
    for (layer, bytes) in &blobs {
        let answer = registry.get(&format!("/v2/app/blobs/{}", layer.digest)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-length"), Some(layer.size.to_string().as_str()));
        assert_eq!(answer.header("docker-content-digest"), Some(layer.digest.to_string().as_str()));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert!(answer.body == *bytes);
    }
}

#[tokio::test]
async fn an_index_is_what_a_tag_means_where_there_is_one() {
    let (image, blobs) = fixture::image(1, &[10]);
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.manifest_digest, "size": image.manifest.len(),
        }],
    });
    let image = image.under(index.to_string().into()).unwrap();
    let source = MemorySource::default();
    source.insert("app:1", (image.clone(), blobs));
    let registry = Served::of(source).await;
    let answer = registry.get("/v2/app/manifests/1").await;
    assert_eq!(answer.body, image.index.clone().unwrap());
    let media_type = "application/vnd.docker.distribution.manifest.list.v2+json";
    assert_eq!(answer.header("content-type"), Some(media_type));
    for (digest, expected) in
        [(image.target_digest(), image.index.unwrap()), (image.manifest_digest, image.manifest)]
    {
        let answer = registry.get(&format!("/v2/app/manifests/{digest}")).await;
        assert_eq!(answer.body, expected);
    }
}

#[tokio::test]
async fn a_blob_is_given_from_any_offset() {
    let (registry, (_, blobs)) = one_image().await;
    let (layer, bytes) = &blobs[1];
    let path = format!("/v2/app/blobs/{}", layer.digest);
    let size = bytes.len();
    let pieces = [
        ("bytes=0-", 0, size),
        ("bytes=1-", 1, size),
        ("bytes=1048576-", 1 << 20, size),
        ("bytes=5-1048580", 5, 1_048_581),
        ("bytes=-7", size - 7, size),
        ("bytes=7-99999999999", 7, size),
    ];
    for (range, start, end) in pieces {
        let answer = registry.ask("GET", &path, &format!("Range: {range}\r\n")).await;
        assert_eq!(answer.status, 206, "{range}");
        assert!(answer.body == bytes[start..end], "{range}");
        let expected = format!("bytes {start}-{}/{size}", end - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()));
        assert_eq!(answer.header("content-length"), Some((end - start).to_string().as_str()));
    }
    let beyond = registry.ask("GET", &path, &format!("Range: bytes={size}-\r\n")).await;
    assert_eq!((beyond.status, beyond.code().as_str()), (416, "RANGE_INVALID"));
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{size}").as_str()));
    let nonsense = registry.ask("GET", &path, "Range: bytes=x\r\n").await;
    assert_eq!((nonsense.status, nonsense.body.len()), (200, size));
}

#[tokio::test]
async fn a_head_is_an_answer_without_its_body() {
    let (registry, (image, blobs)) = one_image().await;
    let paths = [
        ("/v2/".to_owned(), 2),
        ("/v2/app/manifests/1".to_owned(), image.manifest.len()),
        (format!("/v2/app/blobs/{}", image.config_digest), image.config.len()),
        (format!("/v2/app/blobs/{}", blobs[1].0.digest), blobs[1].1.len()),
    ];
    for (path, length) in paths {
        let answer = registry.ask("HEAD", &path, "Range: bytes=1-\r\n").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{path}");
        assert_eq!(answer.header("content-length"), Some(length.to_string().as_str()), "{path}");
    }
    assert_eq!(registry.ask("HEAD", "/v2/app/manifests/none", "").await.status, 404);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_the_specifications_words() {
    let (registry, (_, blobs)) = one_image().await;
    let layer = blobs[0].0.digest;
    let unknown = Digest::of(b"unknown");
    let table = [
        ("/".to_owned(), 404, "UNSUPPORTED"),
        ("/v2/_catalog".to_owned(), 404, "UNSUPPORTED"),
        ("/v2/app/manifests/3".to_owned(), 404, "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/1".to_owned(), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/app/manifests/{unknown}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/app/blobs/{unknown}"), 404, "BLOB_UNKNOWN"),
        // A blob is read as part of an image of the repository, or not at all.
        (format!("/v2/other/blobs/{layer}"), 404, "BLOB_UNKNOWN"),
        (format!("/v2/app/manifests/{layer}"), 404, "MANIFEST_UNKNOWN"),
        ("/v2/other/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("/v2/app/tags/list?n=x".to_owned(), 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/App/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/../../etc/passwd/manifests/1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/app%2f..%2f/manifests/1".to_owned(), 400, "NAME_INVALID"),
        (format!("/v2/app:1/blobs/{layer}"), 400, "NAME_INVALID"),
        (format!("/v2/{}/manifests/1", "a".repeat(5000)), 400, "NAME_INVALID"),
        ("/v2/app/manifests/..".to_owned(), 400, "DIGEST_INVALID"),
        ("/v2/app/blobs/sha256:../../../etc/passwd".to_owned(), 404, "UNSUPPORTED"),
        ("/v2/app/blobs/sha512:00".to_owned(), 400, "DIGEST_INVALID"),
    ];
    for (path, status, code) in table {
        let answer = registry.get(&path).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
}

#[tokio::test]
async fn nothing_can_be_written() {
    let (registry, (_, blobs)) = one_image().await;
    let layer = format!("/v2/app/blobs/{}", blobs[0].0.digest);
    let paths = ["/v2/", "/v2/app/manifests/1", "/v2/app/blobs/uploads/", &layer, "/"];
    for path in paths {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X"] {
            let answer = registry.ask(method, path, "Content-Length: 0\r\n").await;
            assert_eq!((answer.status, answer.code().as_str()), (405, "UNSUPPORTED"), "{method}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    let body = registry.ask("GET", "/v2/", "Content-Length: 1000000000\r\n").await;
    assert_eq!(body.status, 405);
    let chunked = registry.ask("GET", "/v2/", "Transfer-Encoding: chunked\r\n").await;
    assert_eq!(chunked.status, 405);
    assert_eq!(registry.get(&layer).await.status, 200);
}

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let (registry, _) = one_image().await;
    let tags = async |query: &str| {
        let answer = registry.get(&format!("/v2/app/tags/list{query}")).await;
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["name"], "app");
        let link = answer.header("link").map(str::to_owned);
        (serde_json::from_value::<Vec<String>>(document["tags"].clone()).unwrap(), link)
    };
    assert_eq!(tags("").await, (vec!["1".to_owned(), "2".to_owned()], None));
    let next = r#"</v2/app/tags/list?n=1&last=1>; rel="next""#.to_owned();
    assert_eq!(tags("?n=1").await, (vec!["1".to_owned()], Some(next)));
    assert_eq!(tags("?n=1&last=1").await, (vec!["2".to_owned()], None));
    assert_eq!(tags("?n=0").await, (vec![], None));
    assert_eq!(tags("?last=2").await, (vec![], None));
}

#[tokio::test]
async fn heads_are_bounded() {
    let (registry, _) = one_image().await;
    let status = async |text: String| {
        let answer = registry.raw(text.as_bytes()).await;
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    };
    let request =
        |headers: &str| format!("GET /v2/ HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    assert!(status(request("")).await.contains("200"));
    let long = format!("X: {}\r\n", "x".repeat(64 << 10));
    assert!(status(request(&long)).await.contains("431"));
    assert!(status(request(&"X: x\r\n".repeat(100))).await.contains("431"));
    assert!(status(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000))).await.contains("4"));
    assert!(!status("\x16\x03\x01\x02\x00 a TLS greeting\r\n\r\n".into()).await.contains("200"));
    assert!(status(request("")).await.contains("200"));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_hung_up_on() {
    let (registry, _) = one_image().await;
    for said in ["", "GET /v2/ HT", "GET /v2/ HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = registry.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer));
        read.await.unwrap_or_else(|_| panic!("still there after {said:?}")).ok();
    }
}

#[tokio::test]
async fn a_crowd_waits_for_its_turn_and_is_served() {
    let (registry, (_, blobs)) = one_image().await;
    let (layer, bytes) = &blobs[1];
    let path = format!("/v2/app/blobs/{}", layer.digest);
    let crowd = (0..100).map(|_| registry.get(&path));
    for answer in futures::future::join_all(crowd).await {
        assert!(answer.body == *bytes);
    }
}

/// A host that is away, or that gives what is not what it says.
struct Trouble {
    source: MemorySource,
    away: bool,
}

#[async_trait]
impl ImageSource for Trouble {
    async fn list(&self) -> Result<Vec<ImageSummary>, SourceError> {
        self.source.list().await
    }

    async fn resolve(&self, reference: &Reference) -> Result<ImageSummary, SourceError> {
        match self.away {
            true => Err(SourceError::unavailable(reference, "nobody is there")),
            false => self.source.resolve(reference).await,
        }
    }

    async fn open(&self, key: &ImageKey, form: LayerForm) -> Result<OpenImage, SourceError> {
        let cut = |blobs| std::sync::Arc::new(fixture::Faulty::cut_off_at(blobs, 1_500_000)) as _;
        Ok(self.source.open(key, form).await?.through(cut))
    }
}

#[tokio::test]
async fn a_host_that_is_away_is_not_one_without_the_image() {
    let (image, blobs) = fixture::image(1, &[10]);
    let source = MemorySource::default();
    source.insert("app:1", (image, blobs));
    let registry = Served::of(Trouble { source, away: true }).await;
    let answer = registry.get("/v2/app/manifests/1").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "UNAVAILABLE"));
}

#[tokio::test]
async fn a_blob_that_breaks_off_never_looks_whole() {
    let (image, blobs) = fixture::image(1, &[3_000_000]);
    let source = MemorySource::default();
    source.insert("app:1", (image, blobs.clone()));
    let registry = Served::of(Trouble { source, away: false }).await;
    let (layer, bytes) = &blobs[0];
    let answer = registry.get(&format!("/v2/app/blobs/{}", layer.digest)).await;
    assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    assert!(answer.body.len() < bytes.len(), "all of it came");
}

#[test]
fn only_loopback_addresses_are_taken() {
    for good in ["127.0.0.1:5055", "127.1.2.3:1", "[::1]:5000", "127.0.0.1:0"] {
        assert_eq!(good.parse::<Loopback>().unwrap().to_string(), good);
    }
    for bad in ["", "off", "5000", "localhost:5000", "0.0.0.0:5000", "10.0.0.1:5000", "[::]:1"] {
        let error = bad.parse::<Loopback>().unwrap_err();
        assert!(error.to_string().contains("loopback"), "{error}");
    }
}
