//! Every error crosses the wire and comes back as itself; hostile requests and answers do not.

use std::io;

use tonic::{Code, Status};
use transfer::{BlobError, ConfigDigest, Digest, ImageKey, ImageSummary, LayerForm, SourceError};

use super::{blob, check, inventory, link, range, ranges, status};
use crate::failure::Failure;
use crate::wire::generated as pb;
use control::lending::{ImageName, ReadError};

fn digest() -> Digest {
    Digest::of(b"blob")
}

fn text() -> String {
    digest().to_string()
}

/// The status as the other side reads it from the wire.
fn sent(status: &Status) -> Failure {
    Failure::new("pipe", status::from_message(status::to_message(status)))
}

#[test]
fn every_blob_error_comes_back_as_itself() {
    let digest = digest();
    let errors = [
        (BlobError::NotFound { digest }, Code::NotFound),
        (BlobError::OffsetBeyondEnd { digest, size: 1, offset: u64::MAX }, Code::OutOfRange),
        (BlobError::SizeMismatch { digest, expected: 0, actual: 2 }, Code::DataLoss),
        (
            BlobError::DigestMismatch { expected: digest, actual: Digest::of(b"other") },
            Code::DataLoss,
        ),
        (BlobError::LeaseLost { digest }, Code::FailedPrecondition),
        (
            BlobError::NoSpace { digest, path: "/store".into(), need: u64::MAX, free: 0 },
            Code::Internal,
        ),
        (
            BlobError::Storage {
                digest,
                path: "/store/blobs".into(),
                source: io::Error::from(io::ErrorKind::StorageFull),
            },
            Code::Internal,
        ),
        (BlobError::unavailable(digest, "the engine is gone"), Code::Unavailable),
    ];
    for (error, code) in errors {
        let status = status::from_blob_error(&error);
        assert_eq!(status.code(), code, "{error:?}");
        let back = status::to_blob_error(digest, sent(&status));
        assert_eq!(back.to_string(), error.to_string());
        assert_eq!(std::mem::discriminant(&back), std::mem::discriminant(&error));
        assert_eq!(status::explain(&back), status::explain(&error));
        // An export that failed with this keeps it beneath the image's name.
        let failed = SourceError::Export { image: "python:3".into(), source: error };
        let status = status::from_source_error(&failed);
        let back = status::to_source_error("python:3", sent(&status));
        assert_eq!(status::explain(&back), status::explain(&failed));
    }
}

#[test]
fn every_source_error_comes_back_as_itself() {
    let image = || "python:3".to_owned();
    let errors = [
        (SourceError::NotFound { image: image() }, Code::NotFound),
        (
            SourceError::Malformed { image: image(), reason: "no layers".into() },
            Code::FailedPrecondition,
        ),
        (SourceError::unavailable(image(), "the engine is gone"), Code::Unavailable),
    ];
    for (error, code) in errors {
        let status = status::from_source_error(&error);
        assert_eq!(status.code(), code, "{error:?}");
        let back = status::to_source_error("python:3", sent(&status));
        assert_eq!(status::explain(&back), status::explain(&error));
    }
}

#[test]
fn only_what_may_pass_is_worth_another_try() {
    let blob = |error| status::from_blob_error(&error);
    let busy = status::from_read_error(&ReadError::Busy { limit: 1 });
    let broken = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
    for status in [busy, broken, blob(BlobError::unavailable(digest(), "x"))] {
        assert!(status::is_transient(&status), "{status:?}");
    }
    let stays = [
        blob(BlobError::NotFound { digest: digest() }),
        blob(BlobError::LeaseLost { digest: digest() }),
        status::invalid("field", "is wrong"),
        status::not_allowed(&"range/a", "/x"),
        Status::unknown("a peer's own words"),
        Status::resource_exhausted("of another kind"),
    ];
    for status in stays {
        assert!(!status::is_transient(&status), "{status:?}");
    }
}

#[test]
fn a_peers_nonsense_in_the_details_is_no_more_than_unavailable() {
    let nonsense = [
        Status::out_of_range("no numbers"),
        Status::data_loss("no reason"),
        Status::with_details(Code::DataLoss, "x", bytes::Bytes::from_static(b"\xff\xff")),
        Status::internal("x"),
        Status::failed_precondition("no lease"),
    ];
    for status in nonsense {
        let error = status::to_blob_error(digest(), Failure::new("pipe", status));
        assert!(matches!(error, BlobError::Unavailable { .. }), "{error:?}");
    }
}

#[test]
fn long_messages_are_cut() {
    let error = SourceError::unavailable("ä".repeat(5000), "x".repeat(1 << 20));
    assert!(status::from_source_error(&error).message().len() < 4096);
}

fn refuses<T>(what: &str, result: Result<T, Status>) {
    match result {
        Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}"),
        Ok(_) => panic!("{what} was accepted"),
    }
}

#[test]
fn hostile_reads_are_refused() {
    let read = |config_digest: &str, lease_id: &str, digest: &str| {
        blob::read_request(pb::ReadBlobRequest {
            config_digest: config_digest.into(),
            lease_id: lease_id.into(),
            digest: digest.into(),
            ..pb::ReadBlobRequest::default()
        })
    };
    assert!(read(&text(), "lease", &text()).is_ok());
    let long = "x".repeat(1 << 16);
    let upper = text().to_uppercase();
    for bad in ["", "sha256:", "../../etc/passwd", &upper, &long, "sha512:00", "\0"] {
        refuses(bad, read(bad, "lease", &text()));
        refuses(bad, read(&text(), "lease", bad));
    }
    refuses("no lease", read(&text(), "", &text()));
    refuses("a long lease", read(&text(), &long, &text()));
    for count in [0, 201, 100_000] {
        let stat = pb::StatBlobsRequest {
            config_digest: text(),
            lease_id: "lease".into(),
            digests: vec![text(); count],
        };
        refuses(&format!("{count} digests"), blob::stat_request(stat));
    }
}

/// A good request for an image by its config.
fn by_config() -> pb::GetImageRequest {
    let name = pb::get_image_request::Name::ConfigDigest(Digest::of(b"config").to_string());
    pb::GetImageRequest { name: Some(name), ..Default::default() }
}

fn doubting(doubted: Vec<String>) -> Result<impl std::fmt::Debug, Status> {
    inventory::image_request(pb::GetImageRequest { doubted, ..by_config() })
}

#[test]
fn an_image_is_asked_for_by_its_key_with_what_is_doubted_of_it() {
    let key = ImageKey {
        config_digest: ConfigDigest(Digest::of(b"config")),
        target_digest: Some(Digest::of(b"target")),
    };
    let wrong = Digest::of(b"layer");
    let request = inventory::image_wanted(&key, LayerForm::Uncompressed, Some(&wrong));
    let read = inventory::image_request(request).unwrap();
    assert_eq!(read, (ImageName::Key(key), LayerForm::Uncompressed, vec![wrong]));
    let (name, form, doubted) = inventory::image_request(by_config()).unwrap();
    assert_eq!(name, ImageName::Key(key.config_digest.into()));
    assert_eq!((form, doubted), (LayerForm::AsStored, vec![]));
    assert!(doubting(vec![wrong.to_string(); 200]).is_ok());
    refuses("201 digests", doubting(vec![wrong.to_string(); 201]));
}

#[test]
fn a_page_ends_between_two_images_of_one_config() {
    let image = |target: &[u8]| ImageSummary {
        config_digest: ConfigDigest(Digest::of(b"config")),
        target_digest: Some(Digest::of(target)),
        references: Vec::new(),
        diff_ids: Vec::new(),
        unpacked_size: 0,
        platform: transfer::Platform::host(),
    };
    let mut images = vec![image(b"one"), image(b"two"), image(b"three")];
    images.sort_by_key(ImageSummary::key);
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    for _ in 0..3 {
        let page = inventory::list_request(&pb::ListImagesRequest { page_size: 1, page_token });
        let answer = inventory::list_response(&page.unwrap(), images.clone());
        let (piece, next) = inventory::listed(answer).unwrap();
        seen.extend(piece);
        page_token = next.unwrap_or_default();
    }
    assert_eq!((seen, page_token.as_str()), (images, ""));
}

#[test]
fn hostile_names_are_refused() {
    use pb::get_image_request::Name;
    let long = "x".repeat(1 << 16);
    let image = |name| inventory::image_request(pb::GetImageRequest { name, ..Default::default() });
    refuses("no name", image(None));
    for bad in ["", "UPPER", "a b", "../x", "a:b:c", "-", &long, &"0".repeat(64), "\u{202e}"] {
        refuses(bad, image(Some(Name::Reference(bad.into()))));
        refuses(bad, image(Some(Name::ConfigDigest(bad.into()))));
        refuses(bad, doubting(vec![bad.into()]));
        if !bad.is_empty() {
            refuses(
                bad,
                inventory::image_request(pb::GetImageRequest {
                    target_digest: bad.into(),
                    ..by_config()
                }),
            );
        }
        refuses(bad, range::sync_request(&pb::SyncRequest { references: vec![bad.into()] }));
        refuses(bad, inventory::reference(bad));
        refuses(bad, ranges::remove_request(&pb::RemoveRangeRequest { name: bad.into() }));
        let named = || pb::AddRangeRequest { name: "a".into(), ..Default::default() };
        refuses(bad, ranges::add_request(&pb::AddRangeRequest { name: bad.into(), ..named() }));
        let wanted = vec![bad.to_owned()];
        refuses(bad, ranges::add_request(&pb::AddRangeRequest { wanted, ..named() }));
        let report = pb::RangeReport {
            engine_error: "down".into(),
            removed: vec![bad.into()],
            ..Default::default()
        };
        let message = Some(pb::attach_request::Message::Report(report));
        assert!(link::said(pb::AttachRequest { message }).is_err(), "{bad:?} was accepted");
        let set = |name: &str, reference: &str| {
            let references = vec![reference.to_owned()];
            ranges::set_wanted_request(&pb::SetWantedRequest {
                name: name.into(),
                references,
                expected_revision: None,
            })
        };
        refuses(bad, set(bad, "python:3"));
        refuses(bad, set("lab-1", bad));
        refuses(bad, check::plan_request(&pb::PlanRequest { references: vec![bad.into()] }));
        let verify = pb::VerifyRequest { references: vec![bad.into()], deep: true };
        refuses(bad, check::verify_request(&verify));
    }
    for bad in ["127.0.0.1", "localhost:1", ":1", "127.0.0.1:65536", "unix:///a", "\0"] {
        let (name, tcp_address) = ("a".into(), bad.into());
        let add = pb::AddRangeRequest { name, tcp_address, ..Default::default() };
        refuses(bad, ranges::add_request(&add));
    }
    let many = vec!["a".to_owned(); 1001];
    let named = || pb::AddRangeRequest { name: "a".into(), ..Default::default() };
    for request in [
        pb::AddRangeRequest { wanted: many.clone(), ..named() },
        pb::AddRangeRequest { grants: many.clone(), ..named() },
        pb::AddRangeRequest { grants: vec!["a b".into()], ..named() },
    ] {
        refuses("wants and grants", ranges::add_request(&request));
    }
    let (name, references) = ("a".into(), many);
    let many = pb::SetWantedRequest { name, references, expected_revision: None };
    refuses("a large set", ranges::set_wanted_request(&many));
    for count in [0, 1001] {
        let references = vec!["a".to_owned(); count];
        let request = pb::ResolveImagesRequest { references: references.clone() };
        refuses(&format!("{count} references"), inventory::resolve_request(request));
        refuses(
            &format!("{count} references"),
            range::sync_request(&pb::SyncRequest { references }),
        );
    }
}

#[test]
fn a_link_counts_only_for_who_takes_what_it_is_good_for() {
    let config_digest = transfer::ConfigDigest(digest());
    let loan = control::lending::Loan { config_digest, lease_id: "lease".into() };
    for link in [None, Some(0), Some(u64::MAX)] {
        let wanted = blob::Wanted { loan: loan.clone(), digest: digest(), offset: 7, link };
        let request = blob::read_wanted(&wanted);
        assert_eq!(request.accept_encodings.is_empty(), link.is_none());
        let read = blob::read_request(request.clone()).unwrap();
        assert_eq!((read.link, read.offset, read.digest), (link, 7, digest()));
        let deaf = pb::ReadBlobRequest { accept_encodings: vec![0, 2, -1], ..request };
        assert_eq!(blob::read_request(deaf).unwrap().link, None);
    }
}

#[test]
fn hostile_answers_are_refused() {
    assert!(blob::stated(&digest(), pb::StatBlobsResponse::default()).is_err());
    let other = [(Digest::of(b"other"), Some(1))];
    assert!(blob::stated(&digest(), blob::stat_response(&other)).is_err());

    let (given, _) = transfer::fixture::image(1, &[10]);
    let (swapped, _) = transfer::fixture::image(2, &[10]);
    let whole = pb::Image::from(&given);
    assert_eq!(transfer::Image::try_from(whole.clone()).unwrap(), given);
    let mut lying = vec![pb::Image::default()];
    lying.push(pb::Image { config: swapped.config.clone(), ..whole.clone() });
    lying.push(pb::Image { manifest: swapped.manifest.clone(), ..whole.clone() });
    lying.push(pb::Image { manifest_digest: text(), ..whole.clone() });
    lying.push(pb::Image { config_digest: text(), ..whole.clone() });
    let index = |digest: Digest| {
        let child = format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":7}}"#,
            transfer::MediaType::MANIFEST
        );
        bytes::Bytes::from(format!(r#"{{"schemaVersion":2,"manifests":[{child}]}}"#))
    };
    lying.push(pb::Image { index: index(swapped.manifest_digest), ..whole.clone() });
    let published = given.clone().under(index(given.manifest_digest)).unwrap();
    let told = pb::Image::from(&published);
    assert_eq!(transfer::Image::try_from(told).unwrap(), published);
    for image in lying {
        assert!(transfer::Image::try_from(image.clone()).is_err(), "{image:?} was accepted");
    }
    let response = |image| pb::GetImageResponse { image, lease: None };
    let wanted = given.config_digest;
    assert!(inventory::image_given(&wanted, response(None)).is_err());
    assert!(inventory::image_given(&wanted, response(Some(whole))).is_err(), "without a lease");
    let other = response(Some((&swapped).into()));
    assert!(inventory::image_given(&wanted, other).is_err(), "another image");
}
