//! A range image in the layout of `docker:dind`: busybox as its shell, `dockerd-entrypoint.sh`,
//! certificates in `DOCKER_TLS_CERTDIR`.

use std::fs;

use range::StoreKind;

use crate::images::busybox;
use crate::site::{Site, range_image, stack_image};

const ENTRY_POINT: &str = include_str!("dockerd-entrypoint.sh");

/// Builds the image on a range image, which has the engine.
fn build(site: &Site, image: &str) {
    let context = tempfile::tempdir().unwrap();
    let recipe = format!(
        "FROM {}\n\
         COPY busybox /opt/busybox\n\
         COPY dockerd-entrypoint.sh /usr/local/bin/dockerd-entrypoint.sh\n\
         RUN [\"/opt/busybox\", \"ln\", \"-sf\", \"/opt/busybox\", \"/bin/sh\"]\n\
         RUN chmod 755 /opt/busybox /usr/local/bin/dockerd-entrypoint.sh && rm /usr/local/bin/range-engine\n\
         ENV DOCKER_TLS_CERTDIR=/certs\n\
         VOLUME /var/lib/docker\n\
         ENTRYPOINT [\"dockerd-entrypoint.sh\"]\n\
         CMD []\n",
        range_image(StoreKind::Graphdriver)
    );
    fs::write(context.path().join("Dockerfile"), recipe).unwrap();
    fs::write(context.path().join("dockerd-entrypoint.sh"), ENTRY_POINT).unwrap();
    let program = context.path().join("busybox");
    fs::write(&program, busybox(&site.docker)).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, executable).unwrap();
    let folder = context.path().display();
    site.docker.must(&format!(
        "build --quiet --network none --label dev.longshore=1 --tag {image} {folder}"
    ));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_an_image_in_the_layout_of_docker_dind_makes_a_range() {
    let site = Site::start().await;
    let image = format!("longshore-test/layout-{}:1", std::process::id());
    build(&site, &image);
    let (first, second) = (stack_image("tiny"), stack_image("node"));
    let report = site.up_from(&image, &["one"], &[&first]).await;
    assert!(report.is_whole(), "{report:#?}");
    let report = site.sync(&["one"], &[&second]).await;
    assert!(report.is_whole(), "{report:#?}");
    let inside = site.inside("one");
    for wanted in [&first, &second] {
        assert!(inside.image(wanted).is_some(), "the range lacks {wanted}");
    }
    let shell = inside.command_around(&["readlink", "/bin/sh"]).unwrap();
    assert_eq!(shell.trim(), "/opt/busybox");
    // The certificates were made in the range, so its entry point did the work.
    inside.command_around(&["test", "-s", "/certs/server/cert.pem"]).unwrap();
    let removals = site.ranges.down(&range::Selection::All).await.unwrap();
    assert!(removals.iter().all(|removal| removal.error.is_none()), "{removals:?}");
    site.docker.must(&format!("image rm --force {image}"));
}
