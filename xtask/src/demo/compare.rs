//! The second opinion: what the plain docker client says of each image, here and in each range.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use range::{RangeName, Ranges, Report, StoreKind};

use crate::range::told;
use crate::setup::Machine;

/// How long looking at an image may take in a busy range.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// The image ID and then the diff IDs, parted by spaces.
const TEMPLATE: &str = "{{.Id}}{{range .RootFS.Layers}} {{.}}{{end}}";

/// What one engine says of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    id: String,
    diff_ids: Vec<String>,
}

/// Compares every image with the host's, and with our own report; whether all is the same.
pub(super) async fn by_plain_docker(
    machine: &Machine,
    ranges: &Ranges,
    report: &Report,
) -> Result<bool> {
    println!(
        "\nThe same by the plain docker client (docker image inspect, here and in each range):"
    );
    let mut all_same = true;
    for range in &report.ranges {
        let store = range.engine.as_ref().map(|engine| engine.store);
        let (mut layers, mut different) = (0, Vec::new());
        for image in &range.images {
            let reference = image.reference.to_string();
            let here = on_host(&machine.docker_host, &reference)?;
            let there = in_range(ranges, &range.range, &reference).await?;
            let reported = image.engine_image_id.map(|id| id.to_string());
            layers += there.diff_ids.len();
            different.extend(
                difference(&here, &there, store, reported.as_deref())
                    .map(|what| format!("{reference}: {what}")),
            );
        }
        println!(
            "  {}: {} images, {layers} layers, {}",
            range.range,
            range.images.len(),
            if different.is_empty() {
                "each as on the host and as reported".to_owned()
            } else {
                different.join("; ")
            }
        );
        all_same &= different.is_empty();
    }
    Ok(all_same)
}

/// What is not as it should be; absent when all is.
///
/// An image ID is the config digest on a graphdriver, the same in every engine; on the containerd
/// store it is the manifest's digest, which no other store shows. Layers are the same everywhere.
fn difference(
    here: &Seen,
    there: &Seen,
    store: Option<StoreKind>,
    reported: Option<&str>,
) -> Option<String> {
    if here.diff_ids != there.diff_ids {
        return Some("other layers than on the host".to_owned());
    }
    if reported != Some(&there.id) {
        return Some(format!(
            "its ID is {}, reported was {}",
            there.id,
            reported.unwrap_or("none")
        ));
    }
    let comparable = store == Some(StoreKind::Graphdriver);
    (comparable && here.id != there.id)
        .then(|| format!("its ID is {}, on the host {}", there.id, here.id))
}

fn on_host(docker_host: &str, reference: &str) -> Result<Seen> {
    let output = Command::new("docker")
        .args(["--host", docker_host, "image", "inspect", "--format", TEMPLATE, reference])
        .stdin(Stdio::null())
        .output()
        .context("starting the docker client")?;
    if !output.status.success() {
        bail!(
            "the host's engine has no {reference}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    seen(&output.stdout).with_context(|| format!("the host's engine says nothing of {reference}"))
}

async fn in_range(ranges: &Ranges, range: &RangeName, reference: &str) -> Result<Seen> {
    let command = ["docker", "image", "inspect", "--format", TEMPLATE, reference];
    let output = ranges.exec(range, &command, LOOK_LIMIT).await.map_err(|error| told(&error))?;
    if output.exit_code != 0 {
        bail!("{range} has no {reference}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    seen(&output.stdout)
        .with_context(|| format!("the engine of {range} says nothing of {reference}"))
}

fn seen(output: &[u8]) -> Option<Seen> {
    let text = String::from_utf8_lossy(output);
    let mut words = text.split_whitespace().map(str::to_owned);
    Some(Seen { id: words.next()?, diff_ids: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_prints_is_read() {
        let expected = Seen {
            id: "sha256:a".to_owned(),
            diff_ids: vec!["sha256:b".to_owned(), "sha256:c".to_owned()],
        };
        assert_eq!(seen(b"sha256:a sha256:b sha256:c\n"), Some(expected));
        assert_eq!(seen(b"\n"), None);
    }

    #[test]
    fn ids_are_compared_only_where_the_stores_agree_on_them() {
        let image =
            |id: &str, layer: &str| Seen { id: id.to_owned(), diff_ids: vec![layer.to_owned()] };
        let check = |there: &Seen, store, reported, same: bool| {
            let difference = difference(&image("a", "1"), there, Some(store), Some(reported));
            assert_eq!(difference.is_none(), same, "{there:?} {store} {reported}: {difference:?}");
        };
        check(&image("a", "1"), StoreKind::Graphdriver, "a", true);
        check(&image("b", "1"), StoreKind::Graphdriver, "b", false);
        check(&image("m", "1"), StoreKind::Containerd, "m", true);
        check(&image("m", "1"), StoreKind::Containerd, "n", false);
        check(&image("a", "2"), StoreKind::Graphdriver, "a", false);
    }
}
