//! Failures that the user can fix: each case, its exit code, and its message.
//!
//! Most cases need no range: the dind agent is run once, on this machine, between the engine of the
//! tests and whatever is wrong.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use range::{Report, StoreKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::task::block_in_place;

use crate::images::{Made, busybox};
use crate::oci::Layout;
use crate::site::{Options, Site, stack_image, variable};

/// Maximum time until a command reports its failure.
const TELLS_WITHIN: Duration = Duration::from_secs(90);

/// Bytes of the data volume that has no space, and of the image that does not fit.
const SMALL: usize = 48 << 20;
const LARGE: usize = 40 << 20;

/// One case of the table.
#[derive(Debug)]
struct Case {
    what: &'static str,
    /// The exit code, or that of the `xtask` command whose report this is.
    exit: i32,
    /// All that was printed.
    said: String,
    took: Duration,
}

impl Case {
    /// Prints the case as a row, and holds it to its exit code and to words that a person needs.
    fn check(&self, exit: i32, words: &[&str]) {
        let Self { what, said, took, .. } = self;
        println!("| {what:42} | {} | {:>6} ms | {said} |", self.exit, took.as_millis());
        assert_eq!(self.exit, exit, "{what}: {said}");
        for word in words {
            assert!(said.contains(word), "{what}: no {word:?} in {said}");
        }
        assert!(*took < TELLS_WITHIN, "{what}: it took {took:?}");
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
}

/// Runs a program to its end.
fn case(what: &'static str, command: &mut Command) -> Case {
    let started = Instant::now();
    // A case that waits for ever is killed, and has no exit code.
    let mut bounded = Command::new("timeout");
    bounded.args(["--signal=KILL", &TELLS_WITHIN.as_secs().to_string()]);
    bounded.arg(command.get_program()).args(command.get_args());
    // An agent's log on the way is no part of its final report.
    let output = bounded.env("RUST_LOG", "error").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().replace('\n', " ⏎ ");
    Case { what, exit: output.status.code().unwrap_or(-1), said, took: started.elapsed() }
}

/// The dind agent, asked once to bring `image` from a host agent into an engine.
fn sync(folder: &Path, engine: &str, host: &str, image: &str) -> Command {
    let mut command = Command::new(variable("LONGSHORE_TEST_DIND_AGENT"));
    command.args(["sync", "--alone", "--format", "json", "--engine", engine, "--host", host]);
    command.arg("--state-dir").arg(folder.join("dind")).arg(image);
    command
}

/// A host agent that should report its failure and end.
fn host_agent(state: &Path, engine: &str, flags: &[&str]) -> Command {
    let mut command = Command::new(variable("LONGSHORE_TEST_HOST_AGENT"));
    command.args(["serve", "--inspect", "off", "--engine", engine, "--state-dir"]);
    command.arg(state).args(flags);
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_what_is_wrong_around_the_agents_is_told_with_an_exit_code() {
    let mut site = Site::start().await;
    let folder = tempfile::Builder::new().prefix("lsb-").tempdir().unwrap();
    let folder = folder.path();
    let (engine, admin) = (site.docker_host.clone(), site.admin_endpoint().to_string());
    let tiny = stack_image("tiny");
    let broken = folder.join("500.sock");
    let stub = tokio::spawn(answer_500(UnixListener::bind(&broken).unwrap()));
    let broken = format!("unix://{}", broken.display());

    let run = |what, engine: &str, host: &str| {
        block_in_place(|| case(what, &mut sync(folder, engine, host, &tiny)))
    };
    run("nothing is wrong", &engine, &admin).check(0, &["present"]);
    run("the range's engine answers 500", &broken, &admin).check(1, &["500", "500.sock"]);
    run("the range's engine is a host agent", &admin, &admin).check(1, &["admin.sock", "engine"]);
    run("the host agent is an engine", &engine, &engine).check(1, &["host agent", &engine]);

    let started = |what, mut command: Command| block_in_place(|| case(what, &mut command));
    let state = site.path("host");
    started("two host agents on one store", host_agent(&state, &engine, &[]))
        .check(1, &["in use by process", "--state-dir"]);
    started("a store that cannot be written", read_only(&folder.join("read-only"), &engine))
        .check(1, &["read-only"]);
    started("an engine's address that is none", host_agent(&state, "nowhere://x", &[]))
        .check(2, &["nowhere"]);

    serve(&mut site, &broken, &[]).await;
    let told = run("the host's engine answers 500", &engine, &admin);
    with_log(told, &site).check(1, &["does not serve yet", "500", "500.sock"]);
    let nothing = folder.join("nothing").display().to_string();
    let files = ["--export-way=files", &format!("--data-root={nothing}")];
    serve(&mut site, &engine, &files).await;
    let told = run("a data-root that cannot be read", &engine, &admin);
    with_log(told, &site).check(1, &["does not serve yet", &nothing]);
    let image = block_in_place(|| huge_manifest(&site, &folder.join("layout")));
    let layout = format!("oci:{}", folder.join("layout").display());
    serve(&mut site, &layout, &[]).await;
    let huge = block_in_place(|| {
        case("a manifest of 20 MB", &mut sync(folder, &engine, &admin, &image.reference))
    });
    huge.check(3, &["4194304"]);
    stub.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs a Docker engine and ranges: cargo xtask test runs it"]
async fn dind_what_goes_wrong_in_a_range_is_told_and_leaves_nothing() {
    let site = Site::with(Options { proxied: Some("doomed"), ..Options::default() }).await;
    let reference = format!("longshore-test/large:{}", std::process::id());
    let image = block_in_place(|| Made::new(&busybox(&site.docker), &reference, 8, &[LARGE]));
    block_in_place(|| image.load_into(&site.docker));

    block_in_place(|| small_volume(&site, "full"));
    let started = Instant::now();
    let report = site.up(StoreKind::Graphdriver, &["full"], &[&reference]).await;
    reported("no space in the range", &report, started).check(3, &["space"]);
    assert!(site.inside("full").image(&reference).is_none(), "what does not fit has no name");
    let left = site.inside("full").must("images --quiet");
    assert!(left.is_empty(), "leftovers: {left}");

    // Clocks that differ by ten days for programs that measure elapsed time. (The time of day is
    // one for all containers of a machine.)
    let clock = ["unshare", "--time", "--fork", "--monotonic", "864000", "--boottime", "864000"];
    let agent = "longshore-dind-agent sync --alone --state-dir /tmp/skewed";
    let container = site.container("full");
    let mut skewed = Command::new("docker");
    skewed.args(["--host", &site.docker_host, "exec", &container]).args(clock);
    skewed.args(agent.split(' ')).arg(stack_image("tiny"));
    block_in_place(|| case("clocks that are ten days apart", &mut skewed)).check(0, &["loaded"]);

    let wire = site.wire.as_ref().expect("the range is proxied");
    let report = site.up(StoreKind::Containerd, &["doomed"], &[]).await;
    assert!(report.is_whole(), "{report:#?}");
    wire.throttle(8 << 20);
    let before = wire.moved();
    let started = Instant::now();
    let images = [reference.as_str()];
    let (report, ()) = tokio::join!(site.sync(&["doomed"], &images), async {
        wire.reached(before + (LARGE as u64) / 4).await;
        let container = site.container("doomed");
        block_in_place(|| site.docker.must(&format!("rm --force --volumes {container}")));
    });
    reported("the range is deleted in mid-sync", &report, started).check(3, &["doomed"]);
    site.docker.must(&format!("image rm --force {reference}"));
}

/// Text of a report, with the exit code that a command gives it.
fn reported(what: &'static str, report: &Report, started: Instant) -> Case {
    let errors = report.ranges.iter().flat_map(|range| {
        let images = range.images.iter().filter_map(|image| image.error.clone());
        range.error.iter().cloned().chain(images)
    });
    let said = errors.collect::<Vec<_>>().join(" ⏎ ").replace('\n', " ⏎ ");
    let exit = if report.is_whole() { 0 } else { 3 };
    Case { what, exit, said, took: started.elapsed() }
}

/// Another host agent with these flags in the place of the one there is.
async fn serve(site: &mut Site, engine: &str, flags: &[&str]) {
    let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    site.serve_again(&Options { engine: engine.to_owned(), flags, ..Options::default() }).await;
}

/// The same with the last failure in the host agent's log: the message sends the user there.
fn with_log(mut case: Case, site: &Site) -> Case {
    let log = std::fs::read_to_string(site.path("host.log")).unwrap_or_default();
    let line = log.lines().rfind(|line| line.contains("error=")).unwrap_or("an empty log");
    case.said = format!("{} ⏎ log: {line}", case.said);
    case
}

/// A host agent whose state folder is on a file system that is mounted read-only.
fn read_only(folder: &Path, engine: &str) -> Command {
    std::fs::create_dir(folder).unwrap();
    let script = r#"mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]).arg(folder);
    let agent = host_agent(folder, engine, &[]);
    command.arg(agent.get_program()).args(agent.get_args());
    command
}

/// The data volume of a range to come: in memory, and too small.
fn small_volume(site: &Site, range: &str) {
    let volume = format!("{}-data", site.container(range));
    let labels: Vec<String> = site.labels(range).iter().map(|l| format!("--label={l}")).collect();
    let size = format!("o=size={SMALL}");
    let options = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", &size];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    site.docker.run(&[&["volume", "create"], &options[..], &labels, &[&volume]].concat()).unwrap();
}

/// An OCI layout with a manifest that is larger than any engine reads.
fn huge_manifest(site: &Site, folder: &Path) -> Made {
    let image = Made::new(&busybox(&site.docker), "longshore-test/huge:1", 9, &[1 << 10]);
    Layout::with_padding(&image, 20 << 20).write(folder);
    image
}

/// An engine with nothing but trouble.
async fn answer_500(listener: UnixListener) {
    const ANSWER: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n\
                          Content-Length: 24\r\nConnection: close\r\n\r\n{\"message\":\"it is 500 \"}\n";
    while let Ok((mut caller, _)) = listener.accept().await {
        let mut request = [0; 4096];
        // A caller that left meanwhile needs no answer.
        drop(caller.read(&mut request).await);
        drop(caller.write_all(ANSWER.as_bytes()).await);
    }
}
