//! An independent check of the images in each range, with the plain docker client.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use range::{RangeName, Ranges, Report, StoreKind};

use crate::range::told;
use crate::setup::Machine;

/// Timeout for an inspection in a busy range.
const LOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// The image ID and the diff IDs, separated by spaces.
const TEMPLATE: &str = "{{.Id}}{{range .RootFS.Layers}} {{.}}{{end}}";

/// An image as one engine describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inspected {
    id: String,
    diff_ids: Vec<String>,
}

/// Compares every image with the host's, and with Longshore's report; returns whether all are equal.
pub(super) async fn with_docker_client(
    machine: &Machine,
    ranges: &Ranges,
    report: &Report,
) -> Result<bool> {
    println!(
        "\nCheck with the docker client (docker image inspect on the host and in each range):"
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
                "all as on the host and as reported".to_owned()
            } else {
                different.join("; ")
            }
        );
        all_same &= different.is_empty();
    }
    Ok(all_same)
}

/// The difference between an image in a range and the host's or the report; `None` if there is none.
///
/// On a graphdriver an image ID is the config digest, which is the same in every engine. On the
/// containerd store it is the manifest's digest, which other stores do not show. Layers are the same
/// everywhere.
fn difference(
    here: &Inspected,
    there: &Inspected,
    store: Option<StoreKind>,
    reported: Option<&str>,
) -> Option<String> {
    if here.diff_ids != there.diff_ids {
        return Some("its layers differ from the host's".to_owned());
    }
    if reported != Some(&there.id) {
        return Some(format!(
            "its ID is {}, but the report has {}",
            there.id,
            reported.unwrap_or("none")
        ));
    }
    let comparable = store == Some(StoreKind::Graphdriver);
    (comparable && here.id != there.id)
        .then(|| format!("its ID is {}, but {} on the host", there.id, here.id))
}

fn on_host(docker_host: &str, reference: &str) -> Result<Inspected> {
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
    parse(&output.stdout)
        .with_context(|| format!("docker image inspect {reference} printed nothing on the host"))
}

async fn in_range(ranges: &Ranges, range: &RangeName, reference: &str) -> Result<Inspected> {
    let command = ["docker", "image", "inspect", "--format", TEMPLATE, reference];
    let output = ranges.exec(range, &command, LOOK_TIMEOUT).await.map_err(|error| told(&error))?;
    if output.exit_code != 0 {
        bail!("{range} has no {reference}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    parse(&output.stdout)
        .with_context(|| format!("docker image inspect {reference} printed nothing in {range}"))
}

fn parse(output: &[u8]) -> Option<Inspected> {
    let text = String::from_utf8_lossy(output);
    let mut words = text.split_whitespace().map(str::to_owned);
    Some(Inspected { id: words.next()?, diff_ids: words.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_the_client_is_parsed() {
        let expected = Inspected {
            id: "sha256:a".to_owned(),
            diff_ids: vec!["sha256:b".to_owned(), "sha256:c".to_owned()],
        };
        assert_eq!(parse(b"sha256:a sha256:b sha256:c\n"), Some(expected));
        assert_eq!(parse(b"\n"), None);
    }

    #[test]
    fn ids_are_compared_only_on_the_same_store() {
        let image = |id: &str, layer: &str| Inspected {
            id: id.to_owned(),
            diff_ids: vec![layer.to_owned()],
        };
        let check = |there: &Inspected, store, reported, same: bool| {
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
