//! `cargo xtask test`: set-up, every check and every test, counted in the last lines.
//!
//! ```text
//! setup, agents ► plain tests ► tests on real engines ► results
//!                           └─► checks (fmt, deny, buf, clippy, doc) ──┘
//! ```
//! Tests on engines run two at a time, because a single one leaves a third of two cores idle while
//! engines start. Checks use the remaining time at the lowest priority. A failed check does not stop
//! the others, so one run reports everything. Nothing is skipped: a test that cannot run fails and
//! names what it lacks.

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

/// Options of `cargo xtask test`.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Run only checks and tests that need no engine, without setting up ranges.
    #[arg(long, conflicts_with = "engines_only")]
    plain: bool,
    /// Run only the tests on real engines, with their set-up.
    #[arg(long)]
    engines_only: bool,
}

/// Runs the selected checks and tests.
///
/// # Errors
/// The set-up fails. Failed tests set the exit code instead.
pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let started = Instant::now();
    let mut counts = Counts::default();
    let machine = if options.plain {
        None
    } else {
        // Build the agents while set-up fetches packages and makes images.
        let build = build::begin()?;
        let machine = setup::ensure(&Needs { ranges: Ranges::Usual, stack: true })?;
        Some((machine, build.finish()?))
    };
    if !options.engines_only {
        counts += cargo::test(&[], &[])?;
    }
    // Only one process can install packages at a time, so install all tools first.
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

/// The range image with this tag, or an empty text, which makes the tests that need it fail.
fn range_image(machine: &Machine, tag: &str) -> String {
    let found = machine.range_images.iter().find(|image| image.reference.ends_with(tag));
    found.map(|image| image.reference.clone()).unwrap_or_default()
}

/// Runs the ignored tests, which need an engine or Docker's compose. They run two at a time, since each
/// starts its own engines, which need memory and disk.
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
    // `--tests` leaves out examples in documentation, which run with the plain tests.
    let arguments = ["--tests", "--", "--ignored", "--test-threads=2", "--show-output"];
    cargo::test(&arguments, &environment)
}
