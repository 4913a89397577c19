//! A process that is killed while it takes blobs in leaves a store that opens, and only whole blobs.
//!
//! The test starts this test binary again as a child, which takes in blobs and kills itself with
//! SIGKILL at a given point: first at each frame and around each commit, then some microseconds
//! after each of these, wherever that is. The kernel keeps what a killed process wrote, so this shows
//! the order of the steps; it does not show what a power cut leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use transfer::fixture::{bytes, descriptor_of, frames};
use transfer::store::{CheckReport, FsStore};
use transfer::{BlobStore, MAX_FRAME};

const CUT_POINTS: u64 = 200;

/// Frames of 64 KiB, so that points lie inside a piece that is written at once, too.
const FRAME: usize = 1 << 16;

/// Blobs of one store: less than a piece, pieces, and a tail.
const SIZES: [usize; 3] = [FRAME / 2, MAX_FRAME * 2, MAX_FRAME + FRAME + 1];

/// Where the child's store is, and at which step it dies, after how many microseconds.
const VARIABLES: [&str; 3] = ["KILL_TEST_STORE", "KILL_TEST_STEP", "KILL_TEST_DELAY"];

/// Steps that a child tells of: each frame, and before and after each commit.
fn steps() -> u64 {
    SIZES.iter().map(|size| size.div_ceil(FRAME) as u64 + 2).sum()
}

#[tokio::test]
async fn a_store_opens_after_a_kill_at_any_point_and_lists_only_whole_blobs() {
    let (mut with_leftover, mut blobs_seen) = (0, [false; SIZES.len() + 1]);
    for cut in 0..CUT_POINTS {
        let folder = folder();
        let (step, delay) = (1 + cut % steps(), cut / steps() * 40);
        child_killed_at(folder.path(), step, delay);
        let leftover = folder.path().join("ingest").read_dir().unwrap().count();
        with_leftover += u64::from(leftover != 0);

        let store = FsStore::open(folder.path()).await.unwrap();
        let listed = store.list().await.unwrap();
        let expected = CheckReport {
            good: listed.len() as u64,
            bytes: listed.iter().map(|(_, size)| size).sum(),
            ..CheckReport::default()
        };
        assert_eq!(store.check().await.unwrap(), expected, "killed at {step} + {delay} us");
        assert_eq!(folder.path().join("ingest").read_dir().unwrap().count(), 0);
        blobs_seen[listed.len()] = true;
    }
    // Or else the points were not where ingests happen: each frame's first kill is inside one.
    let frames = steps() - 2 * SIZES.len() as u64;
    assert!(frames <= with_leftover, "only {with_leftover} kills left an ingest behind");
    assert_eq!(blobs_seen[..SIZES.len()], [true; SIZES.len()], "kills between all blobs");
}

/// In memory where that is possible: a kill does not ask the disk, and 200 stores would.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn child_killed_at(store: &Path, step: u64, delay: u64) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::child_that_is_killed_while_it_takes_blobs_in", "--nocapture"])
        .env(VARIABLES[0], store)
        .env(VARIABLES[1], step.to_string())
        .env(VARIABLES[2], delay.to_string())
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(9), "the child lived: {child:?}");
}

/// At once, or from a thread of its own while the ingest goes on.
fn die_after(delay: Duration) {
    let die = || rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
    if delay.is_zero() {
        die();
    }
    let began = Instant::now();
    std::thread::spawn(move || {
        while began.elapsed() < delay {
            std::hint::spin_loop();
        }
        die();
    });
}

/// Not a test by itself: does nothing unless the test above started it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed_while_it_takes_blobs_in() {
    let [Ok(folder), Ok(step), Ok(delay)] = VARIABLES.map(std::env::var) else {
        return;
    };
    let (step, delay) =
        (step.parse::<u64>().unwrap(), Duration::from_micros(delay.parse().unwrap()));
    let mut passed = 0;
    let mut pass = || {
        passed += 1;
        if passed == step {
            die_after(delay);
        }
    };
    let store = FsStore::open(folder).await.unwrap();
    for (size, seed) in SIZES.into_iter().zip(1..) {
        let blob = bytes(seed, size);
        let mut ingest = store.ingest().await.unwrap();
        for frame in frames(&blob, FRAME) {
            ingest.write(frame).await.unwrap();
            pass();
        }
        pass();
        ingest.commit(&descriptor_of(&blob)).await.unwrap();
        pass();
    }
    // The last points lie behind the last step.
    std::future::pending::<()>().await;
}
