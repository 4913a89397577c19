//! `range up`, interrupted at random moments and called again: nothing is loaded twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use range::{RangeEvent, SeedUse, StoreKind, UpRequest, numbered};

use crate::images::{Made, busybox};
use crate::moments::Dice;
use crate::site::{Site, range_image, references};

/// Number of interruptions.
const MOMENTS: u64 = 3;

/// Bytes of noise in each layer of an image.
const LAYERS: [usize; 2] = [6 << 20, 6 << 20];

/// Number of times that the agent of a range loaded `image`.
fn loads(site: &Site, range: &str, image: &str) -> usize {
    let output = std::process::Command::new("docker")
        .args(["--host", &site.docker_host, "logs", &site.container(range)])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = [": loaded ", image];
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_a_call_interrupted_at_any_moment_and_repeated_loads_nothing_twice() {
    let mut site = Site::start().await;
    site.set(|settings| settings.seeds = SeedUse::Never).await;
    let site = Arc::new(site);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut dice = Dice::new(seed);
    let program = busybox(&site.docker);
    let names: Vec<String> =
        (0..2).map(|number| format!("longshore-test/interrupted-{number}:{seed}")).collect();
    let images: Vec<Made> =
        (0..).zip(&names).map(|(n, name)| Made::new(&program, name, seed + n, &LAYERS)).collect();
    images.iter().for_each(|image| image.load_into(&site.docker));
    let references = references(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut whole = Duration::from_secs(3);
    for moment in 0..MOMENTS {
        let request = UpRequest {
            names: numbered(&format!("m{moment}"), 2).unwrap(),
            range_image: range_image(StoreKind::Graphdriver),
            images: references.clone(),
            grants: Vec::new(),
            labels: range::Labels::default(),
        };
        let (again, ranges) = (request.clone(), site.clone());
        let call =
            tokio::spawn(
                async move { ranges.ranges.up(&request, Arc::new(|_: RangeEvent| {})).await },
            );
        let millis = u64::try_from(whole.as_millis()).unwrap().max(1);
        let at = Duration::from_millis(dice.below(millis));
        tokio::time::sleep(at).await;
        let was_running = !call.is_finished();
        call.abort();
        let begun = Instant::now();
        let report = site.ranges.up(&again, Arc::new(|_: RangeEvent| {})).await.unwrap();
        println!("interrupted after {at:?} (running: {was_running}), then {:?}", begun.elapsed());
        whole = at + begun.elapsed();
        assert!(report.is_whole(), "{report:#?}");
        for range in &again.names {
            for image in &images {
                let inside = site.inside(range.as_str());
                image.check(&inside).unwrap();
                assert_eq!(
                    loads(&site, range.as_str(), &image.reference),
                    1,
                    "{range} {}",
                    image.reference
                );
            }
        }
    }
    names.iter().for_each(|name| drop(site.docker.must(&format!("image rm --force {name}"))));
}
