//! The harness of the kills: their moments, their targets, and the checks afterwards.
//!
//! ```text
//!   host engine (a container) ◄─ export proxy ─ host agent ◄─ wire proxy ─ range (agent, dockerd)
//!        may be killed                          may be killed                each may be killed
//! ```
//! The proxies count what was moved, so a moment is a byte; they slow it down, so that a moment can
//! be met.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use range::{Event, EventKind, RangeEvent, RangeEventKind, Report, Stage, UpRequest};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::docker::Docker;
use crate::images::{Made, busybox};
use crate::keeper::kill;
use crate::moments::{Dice, Moment, Phase, Target};
use crate::nested::{Nested, child_of, pid_of, process_in};
use crate::path::Path;
use crate::proxy::Proxy;
use crate::site::{Options, Site, range_image, references};

/// Bytes of noise in each layer.
const LAYERS: [usize; 3] = [3 << 20, 4 << 20, 3 << 20];

/// Rate at which the host's engine sends and the range may receive, in bytes a second: an image
/// takes about half a second on either way.
const RATE: u64 = 24 << 20;

/// Number of kills that may come after the image is whole, before that is a failure.
const TOO_LATE: usize = 6;

/// Maximum time until a range is whole again.
const WHOLE_AGAIN: Duration = Duration::from_secs(180);

/// One range with all that is behind it.
#[derive(Debug)]
pub(crate) struct Lane {
    site: Arc<Site>,
    host_engine: Nested,
    export: Proxy,
    path: Path,
    program: Vec<u8>,
    /// An image that the range has all the time, and that never moves again.
    settled: Made,
    dice: Dice,
    /// Time that the engine in the range works on an image that it has whole.
    load_time: Duration,
    /// So that each image is another.
    next: u64,
    /// Has the sockets; last, so that it goes last.
    _folder: TempDir,
}

/// The one range of a lane.
const RANGE: &str = "one";

/// Result of one run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) target: Target,
    /// Last stage that the range's agent reported before the kill.
    pub(crate) stage: Option<Stage>,
    /// Layer bytes that the range lacked.
    pub(crate) plan: u64,
    /// Phase at the moment of the kill.
    pub(crate) phase: Phase,
    /// Bytes that came to the range, all attempts together.
    pub(crate) moved: u64,
    /// From the harm until the image was whole.
    pub(crate) healed: Duration,
    /// Report of `up`, or the reason why there is none.
    pub(crate) reported: Result<(), String>,
}

/// State of an image on its way.
#[derive(Debug, Default)]
struct Watch {
    stage: Option<Stage>,
    ended: Option<Instant>,
}

impl Lane {
    /// A range, and a host agent behind an engine in a container: all as `path` says.
    pub(crate) async fn start(path: Path, seed: u64) -> Self {
        let outer = Docker::at(crate::site::variable("LONGSHORE_TEST_DOCKER"));
        let folder = tempfile::Builder::new().prefix("lse-").tempdir().unwrap();
        let name = lane_name(path);
        let host_image = range_image(path.host);
        let host_engine = block_in_place(|| {
            Nested::start(&outer, &name, &host_image, &folder.path().join("engine"))
        });
        let front = folder.path().join("export.sock");
        let export = Proxy::start(&front, &host_engine.socket);
        let engine = format!("unix://{}", front.display());
        let options = Options {
            engine,
            flags: path.flags(&host_engine),
            supervised: true,
            proxied: Some(RANGE),
            load_way: path.load,
        };
        let site = Site::with(options).await;
        let program = block_in_place(|| busybox(&site.docker));
        let reference = format!("longshore-test/settled-{name}:{}", std::process::id());
        let settled = Made::new(&program, &reference, seed, &LAYERS);
        block_in_place(|| settled.load_into(&host_engine.docker));
        let report = site.up(path.range, &[RANGE], &[&reference]).await;
        assert!(report.is_whole(), "{report:#?}");
        let mut lane = Self {
            site: Arc::new(site),
            host_engine,
            export,
            path,
            program,
            settled,
            dice: Dice::new(seed),
            load_time: Duration::ZERO,
            next: seed,
            _folder: folder,
        };
        lane.wire().throttle(RATE);
        lane.export.throttle(RATE);
        lane.load_time = lane.undisturbed().await;
        lane
    }

    fn wire(&self) -> &Proxy {
        self.site.wire.as_ref().expect("invariant: the range is proxied")
    }

    /// Brings one image in without harm; how long the engine worked on it when it had it whole.
    async fn undisturbed(&mut self) -> Duration {
        let image = self.fresh_image();
        let before = self.wire().moved();
        let watch = Arc::new(Mutex::new(Watch::default()));
        let up = self.begin(&image, &watch);
        self.wire().reached(before + image.size()).await;
        let arrived = Instant::now();
        let report = up.await.unwrap().unwrap();
        assert!(report.is_whole(), "{report:#?}");
        block_in_place(|| image.check(&self.inside())).unwrap();
        self.forget(&image).await;
        let ended = watch.lock().unwrap().ended.expect("an image that is whole has ended");
        ended.saturating_duration_since(arrived)
    }

    /// Brings one image in, does harm meanwhile, and waits until all is well.
    ///
    /// Harm that came when the image was whole says nothing of an image under way: it is done again
    /// to another image, and earlier, since the engine is quicker than was thought.
    pub(crate) async fn run(&mut self, number: usize, target: Target, phase: Phase) -> Run {
        for _ in 0..TOO_LATE {
            if let Some(run) = self.attempt(number, target, phase).await {
                return run;
            }
            self.load_time = self.load_time.mul_f64(0.5);
        }
        panic!("{}: {target} in {phase:?} came too late {TOO_LATE} times", self.path);
    }

    /// Nothing if the image was whole before the harm was done.
    async fn attempt(&mut self, number: usize, target: Target, phase: Phase) -> Option<Run> {
        let image = self.fresh_image();
        let (exported, moved) = (self.export.moved(), self.wire().moved());
        let victim = block_in_place(|| self.victim(target));
        let watch = Arc::new(Mutex::new(Watch::default()));
        let started = Instant::now();
        let mut up = self.begin(&image, &watch);

        let moment = Moment::throw(&mut self.dice, phase, image.size(), self.load_time);
        let ended_before = tokio::select! {
            () = self.wait_for(moment, exported, moved, &image, &watch) => false,
            _ = &mut up => true,
        };
        let Watch { stage, .. } = *watch.lock().unwrap();
        let hit = match target {
            Target::Connections => {
                self.wire().cut();
                true
            }
            _ => kill(victim),
        };
        assert!(hit, "{target}: there is no process {victim}");
        let at = Instant::now();
        println!(
            "run {number:3} {}: {target} in {phase:?} ({stage:?}), {} bytes exported and {} moved, {} ms after the start",
            self.path,
            self.export.moved() - exported,
            self.wire().moved() - moved,
            (at - started).as_millis(),
        );
        let healed = self.whole_again(&image, at).await;
        if target != Target::Connections {
            let again = block_in_place(|| self.victim(target));
            assert!(![0, victim].contains(&again), "{target}: killed {victim}, now {again}");
        }
        let reported = match ended_before {
            true => Ok(()),
            false => reported(tokio::time::timeout(WHOLE_AGAIN, up).await),
        };
        let moved = self.wire().moved() - moved;
        self.forget(&image).await;
        println!(
            "run {number:3} {}: whole again after {} ms, {moved} bytes moved, {:.2} of the image, told {reported:?}",
            self.path,
            healed.as_millis(),
            moved as f64 / image.size() as f64
        );
        let plan = image.size();
        (!ended_before).then_some(Run { target, phase, stage, plan, moved, healed, reported })
    }

    /// Waits for a moment of a run that began with so many bytes exported and moved.
    async fn wait_for(
        &self,
        moment: Moment,
        exported: u64,
        moved: u64,
        image: &Made,
        watch: &Mutex<Watch>,
    ) {
        match moment.phase {
            // Files are read as the range takes them: before, they are only looked at.
            Phase::Export if !self.path.is_by_socket() => {
                while watch.lock().expect("invariant: no one panics with it").stage.is_none() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.wire().reached(moved + moment.offset / 50).await;
            }
            Phase::Export => self.export.reached(exported + moment.offset).await,
            Phase::Wire => self.wire().reached(moved + moment.offset).await,
            Phase::Load => {
                self.wire().reached(moved + image.size()).await;
                tokio::time::sleep(moment.pause).await;
            }
        }
    }

    /// Waits until the range's engine has the image and its agent has it proven.
    async fn whole_again(&self, image: &Made, since: Instant) -> Duration {
        let name = references(&[&image.reference]).remove(0);
        loop {
            let proven = match self.site.ranges.list().await {
                Ok(ranges) => ranges
                    .iter()
                    .flat_map(|range| &range.images)
                    .any(|held| held.proven && held.reference.as_ref() == Some(&name)),
                Err(_) => false,
            };
            // To ask its engine starts several programs, which others wait for: not at every turn.
            let checked = match proven {
                true => block_in_place(|| image.check(&self.inside())),
                false => Err("its agent has not proven it".to_owned()),
            };
            let healed = since.elapsed();
            if checked.is_ok() {
                return healed;
            }
            assert!(healed < WHOLE_AGAIN, "{} is not whole again: {checked:?}", image.reference);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn begin(
        &self,
        image: &Made,
        watch: &Arc<Mutex<Watch>>,
    ) -> tokio::task::JoinHandle<Result<Report, range::RangeError>> {
        let (site, note) = (self.site.clone(), watch.clone());
        let request = UpRequest {
            names: vec![RANGE.parse().unwrap()],
            range_image: range_image(self.path.range),
            images: references(&[&image.reference, &self.settled.reference]),
            grants: Vec::new(),
            labels: range::Labels::default(),
        };
        let name = references(&[&image.reference]).remove(0);
        let observer = move |event: RangeEvent| {
            if let RangeEventKind::Image(Event { reference, kind }) = event.kind
                && reference == name
            {
                let mut watch = note.lock().expect("invariant: no one panics with it");
                match kind {
                    EventKind::Entered(stage) => watch.stage = Some(stage),
                    EventKind::Done(_) => watch.ended = Some(Instant::now()),
                    _ => {}
                }
            }
        };
        tokio::spawn(async move { site.ranges.up(&request, Arc::new(observer)).await })
    }

    fn fresh_image(&mut self) -> Made {
        self.next += 1;
        let reference = format!("longshore-test/kill-{}:{}", lane_name(self.path), self.next);
        let image = Made::new(&self.program, &reference, self.next, &LAYERS);
        block_in_place(|| image.load_into(&self.host_engine.docker));
        image
    }

    /// Leaves neither engine with the image, so that disks stay small.
    async fn forget(&self, image: &Made) {
        // Else it would come back.
        self.site.want_nothing(RANGE).await;
        block_in_place(|| {
            for docker in [&self.inside(), &self.host_engine.docker] {
                docker.must(&format!("image rm --force {}", image.reference));
            }
        });
    }

    fn inside(&self) -> Docker {
        self.site.inside(RANGE)
    }

    /// Looks at the image that was there all the time.
    pub(crate) fn check_settled(&self) {
        block_in_place(|| self.settled.check(&self.inside())).unwrap();
    }

    /// The process to kill, as this machine numbers it; of no use for connections.
    fn victim(&self, target: Target) -> i32 {
        let range = || pid_of(&self.site.docker, &self.site.container(RANGE));
        match target {
            Target::HostAgent => child_of(self.site.agent.pid()),
            Target::HostEngine => self.host_engine.pid(),
            Target::Range => range(),
            Target::InnerEngine => process_in(range(), |words| words[0].ends_with("dockerd")),
            Target::DindAgent => {
                process_in(range(), |words| words.iter().any(|word| word == "--supervised"))
            }
            Target::Connections => 0,
        }
    }
}

/// A word for a lane, that names of containers and images can have.
fn lane_name(path: Path) -> String {
    let Path { host, export, range, load } = path;
    format!("{host}-{export}-{range}-{load}")
}

fn reported<E: fmt::Display>(
    up: Result<Result<Result<Report, range::RangeError>, E>, tokio::time::error::Elapsed>,
) -> Result<(), String> {
    match up {
        Err(_) => Err("nothing, for too long".to_owned()),
        Ok(Err(panic)) => Err(panic.to_string()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Ok(Ok(report))) if report.is_whole() => Ok(()),
        Ok(Ok(Ok(report))) => {
            let errors = report.ranges.iter().flat_map(|range| {
                range.error.iter().chain(range.images.iter().filter_map(|i| i.error.as_ref()))
            });
            Err(errors.cloned().collect::<Vec<_>>().join("; "))
        }
    }
}
