//! `cargo xtask test`: all set-up, every check, every test, and a last line that counts them.
//!
//! ```text
//! setup, agents ► plain tests ► tests on real engines ► results
//!                           └─► checks (fmt, deny, buf, clippy, doc) ──┘
//! ```
//! Tests on engines run two at a time, since one leaves a third of two cores idle, waiting for
//! engines to start; what two leave idle is where the checks are made, at the lowest priority. A check
//! that fails does not stop the others, so that one run tells everything. Nothing is skipped: what
//! cannot run is a failure that names what it lacks.

mod cargo;
mod checks;
mod tools;

use std::panic::resume_unwind;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::Result;

use self::cargo::Counts;
use crate::build::{self, Agents};
use crate::setup::{self, Machine, Needs, Ranges};

/// What of the whole is to run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Only what needs no engine: checks and plain tests, without any set-up of ranges.
    #[arg(long, conflicts_with = "engines_only")]
    plain: bool,
    /// Only the tests on real engines, with their set-up.
    #[arg(long)]
    engines_only: bool,
}

/// Runs it all.
///
/// # Errors
/// When the set-up fails; a failing test is not an error of this function but its exit code.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let started = Instant::now();
    let mut counts = Counts::default();
    let machine = if options.plain {
        None
    } else {
        // The agents are built while packages are fetched and images made.
        let build = build::begin()?;
        let machine = setup::ensure(&Needs { ranges: Ranges::Usual, stack: true })?;
        Some((machine, build.finish()?))
    };
    if !options.engines_only {
        counts += cargo::test(&[], &[])?;
    }
    // Packages are installed by one at a time.
    let buf = if options.engines_only { None } else { Some(tools::buf()?) };
    if machine.is_some() {
        setup::ensure_skopeo()?;
    }
    let (on_engines, failed_checks) = thread::scope(|scope| {
        let checks = buf.map(|buf| scope.spawn(|| checks::run(buf)));
        let on_engines = machine.as_ref().map(|(machine, agents)| on_real_engines(machine, agents));
        let failed =
            checks.map(|checks| checks.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (on_engines.transpose(), failed.transpose())
    });
    counts += on_engines?.unwrap_or_default();
    let failed_checks = failed_checks?.unwrap_or_default();
    for check in &failed_checks {
        println!("check failed: {check}");
    }
    println!(
        "{} passed, {} failed\nin {:.0} s, {} checks failed",
        counts.passed,
        counts.failed,
        started.elapsed().as_secs_f64(),
        failed_checks.len()
    );
    let green = counts.failed == 0 && counts.passed > 0 && failed_checks.is_empty();
    Ok(if green { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The range image with this tag; empty, which each test that needs it tells, when there is none.
fn range_image(machine: &Machine, tag: &str) -> String {
    let found = machine.range_images.iter().find(|image| image.reference.ends_with(tag));
    found.map(|image| image.reference.clone()).unwrap_or_default()
}

/// The tests that are marked as ignored where no engine, or no Docker's compose to compare with, is
/// at hand: two at a time, since each starts engines of its own, which need memory and disk.
fn on_real_engines(machine: &Machine, agents: &Agents) -> Result<Counts> {
    let compose = tools::compose(&machine.docker_host, &range_image(machine, "26.1-overlay2"))?;
    let binaries = [agents.host_agent.as_path(), agents.dind_agent.as_path()];
    let image = |name| range_image(machine, name);
    let environment = [
        ("LONGSHORE_TEST_DOCKER", machine.docker_host.clone()),
        ("LONGSHORE_TEST_RANGE_OVERLAY2", image("26.1-overlay2")),
        ("LONGSHORE_TEST_RANGE_OVERLAY2_28", image("28.5-overlay2")),
        ("LONGSHORE_TEST_RANGE_CONTAINERD", image("28.5-containerd")),
        ("LONGSHORE_TEST_STACK", machine.stack.join(",")),
        ("LONGSHORE_TEST_HOST_AGENT", agents.host_agent.display().to_string()),
        ("LONGSHORE_TEST_DIND_AGENT", agents.dind_agent.display().to_string()),
        ("LONGSHORE_TEST_AGENTS_IMAGE", setup::agents_image(&binaries)?),
        ("LONGSHORE_TEST_COMPOSE", compose.display().to_string()),
    ];
    // Examples in documentation, which `--tests` leaves out, are among the plain tests.
    let arguments = ["--tests", "--", "--ignored", "--test-threads=2", "--show-output"];
    cargo::test(&arguments, &environment)
}
