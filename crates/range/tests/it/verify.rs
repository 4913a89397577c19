//! A range's images read file by file through its engine: damage beneath the engine is named.

use std::time::Duration;

use range::{ImageCheck, RangeName, Selection, StoreKind};

use crate::site::{Site, stack_image};

/// Finds the largest file of an unpacked layer in the engine's own folders, on either store, and
/// prints it. The tail of its path is that of the file in the image.
const FIND: &str = r"find /var/lib/docker/overlay2 /var/lib/docker/containerd \
    \( -path '*/diff/*' -o -path '*/fs/*' \) -type f -size +64k -exec ls -s {} + 2> /dev/null \
    | sort -n | tail -n 1 | sed 's/^ *[0-9]* //'";

/// Runs a script in the range.
async fn shell(site: &Site, range: &RangeName, script: &str) -> String {
    let ran =
        site.ranges.exec(range, &["sh", "-c", script], Duration::from_secs(60)).await.unwrap();
    assert_eq!(ran.exit_code, 0, "{script}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

/// Result of a deep check of the range's one image.
async fn check(site: &Site, range: &RangeName) -> ImageCheck {
    let selection = Selection::Names(vec![range.clone()]);
    let checks = site.ranges.verify(&selection, &[], true).await.unwrap();
    let [check] = checks.as_slice() else { panic!("{checks:?}") };
    assert_eq!(check.error, None);
    let [image] = check.images.as_slice() else { panic!("{check:?}") };
    image.clone()
}

async fn damage_is_named(store: StoreKind) {
    let site = Site::start().await;
    let image = stack_image("tiny");
    let report = site.up(store, &["a"], &[&image]).await;
    assert!(report.is_whole(), "{report:?}");
    let range: RangeName = "a".parse().unwrap();

    let whole = check(&site, &range).await;
    assert!(whole.is_well(), "{store}: {:?}", whole.problems);
    assert!(0 < whole.files && 1_000_000 < whole.bytes_read, "{store}: {whole:?}");
    println!("{store}: {} files, {} B read", whole.files, whole.bytes_read);

    let file = shell(&site, &range, FIND).await;
    let tail = file.rsplit_once("/diff/").or(file.rsplit_once("/fs/")).expect(&file).1.to_owned();
    let spoil = format!("printf x | dd of='{file}' bs=1 seek=1000 conv=notrunc");
    let remove = format!("rm '{file}'");
    for harm in [spoil, remove] {
        shell(&site, &range, &harm).await;
        let found = check(&site, &range).await;
        println!("{store}: {harm}: {:?}", found.problems);
        assert!(!found.is_well(), "{store}: {harm} was not found");
        let named = found.problems.iter().any(|problem| problem.contains(&tail));
        assert!(named, "{store}: {harm} is not named: {:?}", found.problems);
    }
    let left = site.inside("a").must("ps --all --quiet");
    assert_eq!(left, "", "a verification left a container");
}

#[tokio::test]
#[ignore = "needs range images: cargo xtask test runs it"]
async fn dind_a_file_that_changed_beneath_overlay2_is_named() {
    damage_is_named(StoreKind::Graphdriver).await;
}

#[tokio::test]
#[ignore = "needs range images: cargo xtask test runs it"]
async fn dind_a_file_that_changed_beneath_the_containerd_store_is_named() {
    damage_is_named(StoreKind::Containerd).await;
}
