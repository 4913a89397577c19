//! Mistakes of users and missing parts: each its message and its exit code.

use std::process::Command;

use range::StoreKind;

use crate::site::{Site, stack_image};

/// Runs the dind agent once inside a range, as a person at its shell would.
fn sync_inside(site: &Site, range: &str, options: &str, image: &str) -> (i32, String) {
    let output = Command::new("docker")
        .args(["--host", &site.docker_host, "exec", &site.container(range)])
        .args(["longshore-dind-agent", "sync", "--format", "json"])
        .args(options.split_whitespace())
        .arg(image)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_what_is_not_there_has_a_message_and_an_exit_code() {
    let site = Site::start().await;
    let hello = stack_image("tiny");
    let report = site.up(StoreKind::Graphdriver, &["one"], &[&hello, "no/such:image"]).await;
    assert!(!report.is_whole());
    let (there, missing) = (&report.ranges[0].images[0], &report.ranges[0].images[1]);
    assert!(there.proven, "one image that is not there does not stop another: {there:#?}");
    let error = missing.error.as_deref().unwrap();
    assert!(error.contains("no/such:image") && error.contains("not on the host"), "{error}");

    let check = |options, image, code, words: &[&str]| {
        let (found, text) = sync_inside(&site, "one", options, image);
        println!("sync {options} {image}: exit {found}: {text}");
        assert_eq!(found, code, "{options} {image}: {text}");
        for word in words {
            assert!(text.contains(word), "{options} {image}: no {word:?} in {text}");
        }
    };
    check("", &hello, 0, &["present"]);
    check("", "no/such:image", 3, &["no/such:image", "not on the host"]);
    check("", "Not A Reference", 2, &["Not A Reference"]);
    check("--host unix:///run/longshore/nobody.sock", &hello, 1, &["host agent", "nobody.sock"]);
    check("--engine unix:///run/nobody.sock", &hello, 1, &["engine", "nobody.sock"]);
}
