//! Which documents make an image, and which are refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture;

fn config_json(diff_ids: &[DiffId]) -> Value {
    json!({
        "architecture": "arm64", "os": "linux", "variant": "v8",
        "config": {"Labels": {"a": "1", "A": "2"}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "ADD"}, {"created_by": "ENV", "empty_layer": true}],
    })
}

/// An image of two layers as JSON, to be spoilt by a test.
fn documents() -> (Value, Value) {
    let ids = [DiffId(Digest::of(b"one")), DiffId(Digest::of(b"two"))];
    let config = config_json(&ids);
    (manifest_json(&config.to_string(), &ids), config)
}

fn manifest_json(config: &str, ids: &[DiffId]) -> Value {
    let layers: Vec<_> = ids
        .iter()
        .map(|id| json!({"mediaType": MediaType::LAYER, "digest": id, "size": 3}))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MediaType::MANIFEST,
        "config": {
            "mediaType": MediaType::CONFIG,
            "digest": Digest::of(config.as_bytes()),
            "size": config.len(),
        },
        "layers": layers,
    })
}

fn parse(manifest: &str, config: &str) -> Result<Image, InvalidImage> {
    Image::parse(manifest.to_owned().into(), config.to_owned().into())
}

#[test]
fn an_image_is_its_documents_and_what_they_say() {
    let (manifest, config) = documents();
    let (manifest, config) = (manifest.to_string(), config.to_string());
    let image = parse(&manifest, &config).unwrap();
    assert_eq!(image.manifest_digest, Digest::of(manifest.as_bytes()));
    assert_eq!(image.config_digest.0, Digest::of(config.as_bytes()));
    assert_eq!(image.platform.to_string(), "linux/arm64/v8");
    assert_eq!(image.layers[1].diff_id.0, Digest::of(b"two"));
    assert_eq!(image.layers[1].blob.size, 3);
    let file = ConfigFile::parse(config.as_bytes()).unwrap();
    assert_eq!(file.history_empties, [false, true]);
}

#[test]
fn our_manifest_never_changes_a_byte() {
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:0000000000000000000000000000000000000000000000000000000000000001","sha256:0000000000000000000000000000000000000000000000000000000000000002"]}}"#;
    let image = Image::from_layers(config.into(), &[1536, 10_240]).unwrap();
    assert_eq!(
        image.manifest,
        concat!(
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
            r#""config":{"mediaType":"application/vnd.oci.image.config.v1+json","#,
            r#""digest":"sha256:55812b5d0cab610464a1cb15c7726848c5960101c9b93c2f3c3135abb8beb007","size":225},"#,
            r#""layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","#,
            r#""digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001","size":1536},"#,
            r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","#,
            r#""digest":"sha256:0000000000000000000000000000000000000000000000000000000000000002","size":10240}]}"#,
        )
    );
    assert_eq!(image, Image::from_layers(config.into(), &[1536, 10_240]).unwrap());
    Image::from_layers(config.into(), &[1536]).unwrap_err();
}

#[test]
fn dockers_media_types_are_as_good_as_ocis() {
    let (mut manifest, config) = documents();
    manifest["mediaType"] = manifest::DOCKER_MANIFEST.into();
    manifest["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json".into();
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar".into();
    // A compressed layer's blob has another digest than its diff ID.
    manifest["layers"][1]["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
    manifest["layers"][1]["digest"] = Digest::of(b"gzip").to_string().into();
    parse(&manifest.to_string(), &config.to_string()).unwrap();
}

#[test]
fn a_wrong_manifest_is_refused() {
    type Spoil = fn(&mut Value);
    let table: [(&str, Spoil); 18] = [
        ("an index too", |m| m["manifests"] = json!([])),
        ("schema 1 too", |m| m["fsLayers"] = json!([])),
        ("schema version", |m| m["schemaVersion"] = 1.into()),
        ("its own type", |m| m["mediaType"] = MediaType::INDEX.into()),
        ("type is a number", |m| m["mediaType"] = 1.into()),
        ("config type", |m| m["config"]["mediaType"] = "application/vnd.cncf.helm".into()),
        ("config digest", |m| m["config"]["digest"] = Digest::of(b"x").to_string().into()),
        ("config size", |m| m["config"]["size"] = 1.into()),
        ("no config", |m| m["config"] = Value::Null),
        ("layer type", |m| m["layers"][0]["mediaType"] = "text/html".into()),
        ("encrypted", |m| {
            m["layers"][0]["mediaType"] = format!("{}+encrypted", MediaType::LAYER).into();
        }),
        ("layer missing", |m| drop(m["layers"].as_array_mut().unwrap().pop())),
        ("negative size", |m| m["layers"][0]["size"] = (-1).into()),
        ("fraction", |m| m["layers"][0]["size"] = 1.5.into()),
        ("beyond i64", |m| m["layers"][0]["size"] = u64::MAX.into()),
        ("sum overflows", |m| {
            let layer = json!({
                "mediaType": format!("{}+gzip", MediaType::LAYER),
                "digest": Digest::of(b"x"), "size": i64::MAX,
            });
            m["layers"] = vec![layer; 3].into();
        }),
        ("digest is no digest", |m| m["layers"][0]["digest"] = "sha256:../x".into()),
        ("not the diff ID", |m| m["layers"][0]["digest"] = Digest::of(b"x").to_string().into()),
    ];
    for (name, spoil) in table {
        let (mut manifest, config) = documents();
        spoil(&mut manifest);
        parse(&manifest.to_string(), &config.to_string()).expect_err(name);
    }
}

#[test]
fn a_wrong_config_is_refused() {
    type Spoil = fn(&mut Value);
    let table: [(&str, Spoil); 7] = [
        ("no rootfs", |c| drop(c.as_object_mut().unwrap().remove("rootfs"))),
        ("rootfs type", |c| c["rootfs"]["type"] = "files".into()),
        ("one diff ID less", |c| drop(c["rootfs"]["diff_ids"].as_array_mut().unwrap().pop())),
        ("diff ID", |c| c["rootfs"]["diff_ids"][0] = "sha256:1".into()),
        ("history", |c| c["history"] = vec![json!({}); 3].into()),
        ("os is a list", |c| c["os"] = json!([])),
        ("126 layers", |c| {
            c["rootfs"]["diff_ids"] = vec![json!(Digest::of(b"one")); 126].into();
        }),
    ];
    for (name, spoil) in table {
        let (_, mut config) = documents();
        spoil(&mut config);
        let ids = [DiffId(Digest::of(b"one")), DiffId(Digest::of(b"two"))];
        let config = config.to_string();
        parse(&manifest_json(&config, &ids).to_string(), &config).expect_err(name);
    }
}

#[test]
fn documents_that_can_be_read_in_two_ways_are_refused() {
    let (manifest, config) = documents();
    let (manifest, config) = (manifest.to_string(), config.to_string());
    let table = [
        manifest.replacen('{', r#"{"layers":[],"#, 1),
        // Go matches fields in any case, and takes ſ for s.
        manifest.replacen('{', r#"{"Layers":[],"#, 1),
        manifest.replacen('{', r#"{"layer\u017f":[],"#, 1),
        manifest.replacen(r#""size":"#, r#""size":3,"size":"#, 1),
        manifest.replacen('{', r#"{"annotations":{"a":"1","a":"2"},"#, 1),
        format!("{manifest}{manifest}"),
        format!("{manifest} x"),
        "[".repeat(100_000),
        "null".into(),
        String::new(),
    ];
    for text in table {
        let head: String = text.chars().take(60).collect();
        parse(&text, &config).expect_err(&head);
    }
}

#[test]
fn size_caps_come_before_reading() {
    let (manifest, config) = documents();
    let long = format!("{manifest}{}", " ".repeat(MAX_MANIFEST));
    assert!(matches!(parse(&long, &config.to_string()), Err(InvalidImage::TooLarge { .. })));
    let long = " ".repeat(MAX_CONFIG + 1);
    assert!(matches!(ConfigFile::parse(long.as_bytes()), Err(InvalidImage::TooLarge { .. })));
    let keys: String = (0..20_000).map(|n| format!(r#""{n}":0,"#)).collect();
    ConfigFile::parse(format!("{{{keys}\"x\":0}}").as_bytes()).unwrap_err();
}

#[test]
fn an_image_without_layers_is_an_image() {
    let config = r#"{"rootfs":{"type":"layers","diff_ids":null}}"#;
    let image = Image::from_layers(config.into(), &[]).unwrap();
    assert_eq!(image.layers, []);
    assert_eq!(image.platform, Platform::host());
}

fn child(os: &str, architecture: &str, variant: &str, seed: &str) -> Value {
    let mut platform = json!({"os": os, "architecture": architecture});
    if !variant.is_empty() {
        platform["variant"] = variant.into();
    }
    json!({
        "mediaType": MediaType::MANIFEST, "digest": Digest::of(seed.as_bytes()), "size": 7,
        "platform": platform,
    })
}

fn index(children: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": MediaType::INDEX, "manifests": children}).to_string()
}

fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
    Platform { os, architecture, variant: parts.next() }
}

#[test]
fn an_index_is_answered_by_platform_and_attestations_are_left_alone() {
    let mut attestation = child("linux", "amd64", "", "attestation");
    attestation["annotations"] = json!({"vnd.docker.reference.type": "attestation-manifest"});
    let text = index(&[
        attestation,
        child("unknown", "unknown", "", "unknown"),
        child("windows", "amd64", "", "windows"),
        child("linux", "amd64", "", "amd64"),
        child("linux", "arm", "v6", "armv6"),
        child("linux", "arm", "v7", "armv7"),
        child("linux", "arm64", "v8", "arm64"),
        child("linux", "amd64", "", "second amd64"),
    ]);
    let entries = parse_index(text.as_bytes()).unwrap();
    assert_eq!(entries.len(), 6);
    let table = [
        ("linux/amd64", Some("amd64")),
        ("linux/amd64/v3", Some("amd64")),
        ("linux/arm64", Some("arm64")),
        ("linux/arm64/v8", Some("arm64")),
        ("linux/arm/v7", Some("armv7")),
        ("linux/arm", Some("armv7")),
        ("linux/arm/v8", Some("armv7")),
        ("linux/arm/v6", Some("armv6")),
        ("linux/arm/v5", None),
        ("linux/riscv64", None),
        ("windows/amd64", Some("windows")),
    ];
    for (wanted, expected) in table {
        let chosen = choose_platform(&entries, &platform(wanted)).map(|e| e.descriptor.digest);
        assert_eq!(chosen, expected.map(|seed| Digest::of(seed.as_bytes())), "{wanted}");
    }
}

#[test]
fn an_index_of_indexes_is_followed_to_a_limit() {
    let leaf = index(&[child("linux", "amd64", "", "leaf")]);
    let around = |inner: &str| {
        let digest = Digest::of(inner.as_bytes());
        index(&[json!({"mediaType": MediaType::INDEX, "digest": digest, "size": inner.len()})])
    };
    let outer = around(&leaf);
    // The documents that are wanted, until one is refused.
    let walk = |documents: &[&str], on: &str| -> (Vec<Digest>, bool) {
        let mut walk = Walk::new(Digest::of(documents[0].as_bytes()), platform(on));
        let mut wanted = Vec::new();
        for document in documents {
            wanted.push(walk.wanted().digest);
            match walk.take(Bytes::copy_from_slice(document.as_bytes())) {
                Ok(Step::Read(next)) => walk = next,
                Ok(Step::Image(_)) => panic!("an index is no image"),
                Err(_) => return (wanted, false),
            }
        }
        wanted.push(walk.wanted().digest);
        (wanted, true)
    };
    let digests = [&outer, &leaf].map(|index| Digest::of(index.as_bytes()));
    let all = [digests[0], digests[1], Digest::of(b"leaf")];
    assert_eq!(walk(&[&outer, &leaf], "linux/amd64"), (all.to_vec(), true));
    assert_eq!(walk(&[&outer, &leaf], "linux/s390x"), (digests.to_vec(), false));
    let endless = [outer.as_str(); 5];
    assert!(walk(&endless[..4], "linux/amd64").1);
    assert!(!walk(&endless, "linux/amd64").1);
}

#[test]
fn a_walk_ends_at_the_image_under_the_index_that_names_it() {
    let (image, _) = crate::fixture::image(1, &[10]);
    let entry = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let inner = index(&[entry(&image.manifest, MediaType::MANIFEST)]);
    let outer = index(&[entry(inner.as_bytes(), MediaType::INDEX)]);
    let (inner, outer) = (Bytes::from(inner), Bytes::from(outer));
    let (manifest, config) = (&image.manifest, &image.config);
    for (documents, index) in [
        (vec![manifest, config], None),
        (vec![&inner, manifest, config], Some(&inner)),
        (vec![&outer, &inner, manifest, config], None),
    ] {
        let mut walk = Walk::new(Digest::of(documents[0]), image.platform.clone());
        let mut end = None;
        for document in &documents {
            let wanted = walk.wanted();
            assert_eq!(wanted.digest, Digest::of(document));
            assert!(wanted.size.is_none_or(|size| size == document.len() as u64));
            match walk.take((*document).clone()).unwrap() {
                Step::Read(next) => walk = next,
                Step::Image(image) => {
                    end = Some(image);
                    break;
                }
            }
        }
        let found = end.expect("the documents lead to an image");
        assert_eq!(found.index.as_ref(), index);
        assert_eq!(Image { index: None, ..*found }, image);
    }
    // A child that is declared to be a manifest is not followed as an index.
    let declared = index(&[entry(&inner, MediaType::MANIFEST)]);
    let walk = Walk::new(Digest::of(declared.as_bytes()), image.platform.clone());
    let Step::Read(walk) = walk.take(declared.into()).unwrap() else { panic!("an image") };
    walk.take(inner).unwrap_err();
}

#[test]
fn a_wrong_index_is_refused() {
    let child = child("linux", "amd64", "", "x");
    let good: Value = serde_json::from_str(&index(std::slice::from_ref(&child))).unwrap();
    for (field, value) in [
        ("layers", json!([])),
        ("config", json!({})),
        ("schemaVersion", json!(1)),
        ("mediaType", json!(MediaType::MANIFEST)),
        ("manifests", json!(vec![child; 1_001])),
        ("manifests", json!({})),
    ] {
        let mut spoilt = good.clone();
        spoilt[field] = value;
        parse_index(spoilt.to_string().as_bytes()).expect_err(field);
    }
}

#[test]
fn the_hosts_platform_has_gos_name() {
    let host = Platform::host();
    assert!(!["x86_64", "aarch64"].contains(&host.architecture.as_str()), "{host}");
}

proptest! {
    #[test]
    fn parsing_never_panics(manifest: Vec<u8>, config: Vec<u8>) {
        drop(Image::parse(manifest.clone().into(), config.into()));
        drop(parse_index(&manifest));
    }

    #[test]
    fn parsing_a_damaged_image_never_panics_and_never_changes_it(
        place in any::<prop::sample::Index>(), byte: u8, in_config: bool,
    ) {
        let (image, _) = fixture::image(1, &[1, 2]);
        let (mut manifest, mut config) = (image.manifest.to_vec(), image.config.to_vec());
        let document = if in_config { &mut config } else { &mut manifest };
        let place = place.index(document.len());
        document[place] = byte;
        if let Ok(parsed) = Image::parse(manifest.into(), config.into()) {
            prop_assert_eq!(parsed.config_digest, image.config_digest);
            prop_assert_eq!(parsed.layers.len(), image.layers.len());
        }
    }
}

#[test]
fn an_image_is_only_under_an_index_that_names_it() {
    let (image, _) = crate::fixture::image(1, &[10]);
    let index = |digest: Digest| -> Bytes {
        let size = image.manifest.len();
        serde_json::json!({
            "schemaVersion": 2, "mediaType": MediaType::INDEX,
            "manifests": [{ "mediaType": MediaType::MANIFEST, "digest": digest, "size": size }],
        })
        .to_string()
        .into()
    };
    assert_eq!(image.target_digest(), image.manifest_digest);
    let good = index(image.manifest_digest);
    let under = image.clone().under(good.clone()).unwrap();
    assert_eq!(under.target_digest(), Digest::of(&good));
    let other = image.clone().under(index(crate::fixture::unknown())).unwrap_err();
    assert!(other.to_string().contains("does not name manifest"), "{other}");
    assert!(image.clone().under(image.manifest.clone()).is_err());
}
