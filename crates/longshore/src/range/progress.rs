//! Progress on stderr: moving lines on a terminal, one line for each range elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use process::output::count;
use range::{
    EventKind, RangeEvent, RangeEventKind, RangeName, RangeObserver, RangeReport, RangeStage,
    Reference,
};

use super::print::summary;

/// Most lines of images that move at once: more would not fit on a screen.
const MAX_BARS: usize = 30;

/// Most lines of ranges; those that have none are in the sum.
const MAX_RANGES: usize = 20;

/// Pause between two redraws of a line.
const TICK: Duration = Duration::from_millis(120);

/// Shows what happens to ranges.
#[derive(Debug)]
pub struct Progress {
    /// Absent where stderr is no terminal.
    screen: Option<MultiProgress>,
    lines: Mutex<Lines>,
}

/// The lines on the screen.
#[derive(Debug, Default)]
struct Lines {
    ranges: HashMap<RangeName, ProgressBar>,
    images: HashMap<(RangeName, Reference), ProgressBar>,
    /// Where each range is that is under way.
    stages: BTreeMap<RangeName, RangeStage>,
    /// Ranges that were asked for, where they are known: a seed that is made on the way is not
    /// among them.
    asked: Vec<RangeName>,
    /// Those that are done.
    done: usize,
    /// How many there are; 0 when that is not known.
    all: usize,
    /// The last line, which sums up.
    sum: Option<ProgressBar>,
}

impl Progress {
    /// Begins with the ranges of these names.
    pub fn of(asked: &[RangeName]) -> Self {
        let mut progress = Self::start(asked.len());
        let lines = progress.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        lines.asked = asked.to_vec();
        progress
    }

    /// Begins with `ranges` of them, 0 when it is not known how many.
    pub fn start(ranges: usize) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        if is_terminal && ranges != 0 {
            eprintln!("{}", count(ranges, "range"));
        }
        let lines = Mutex::new(Lines { all: ranges, ..Lines::default() });
        Self { screen: is_terminal.then(MultiProgress::new), lines }
    }
}

impl RangeObserver for Progress {
    fn observe(&self, event: RangeEvent) {
        // A thread that panicked while it drew leaves nothing that matters half done.
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.count(&event);
        let Some(screen) = &self.screen else {
            match &event.kind {
                RangeEventKind::Done(report) => eprintln!("{}{}", lines.so_far(), summary(report)),
                RangeEventKind::Noted(text) => eprintln!("{}: {text}", event.range),
                RangeEventKind::Entered(_) | RangeEventKind::Image(_) => {}
            }
            return;
        };
        match event.kind {
            RangeEventKind::Entered(stage) => lines.entered(screen, &event.range, stage),
            RangeEventKind::Image(image) => lines.image(screen, &event.range, &image),
            RangeEventKind::Noted(text) => say(screen, &format!("{}: {text}", event.range)),
            RangeEventKind::Done(report) => lines.done(screen, &report),
        }
        lines.sum_up(screen);
    }
}

impl Lines {
    fn count(&mut self, event: &RangeEvent) {
        match &event.kind {
            RangeEventKind::Entered(stage) => {
                self.stages.insert(event.range.clone(), *stage);
            }
            RangeEventKind::Done(_) => {
                self.stages.remove(&event.range);
                let counts = self.asked.is_empty() || self.asked.contains(&event.range);
                self.done += usize::from(counts);
            }
            RangeEventKind::Image(_) | RangeEventKind::Noted(_) => {}
        }
    }

    /// How far a command with many ranges is, before what it says of one.
    fn so_far(&self) -> String {
        if self.all < 2 { String::new() } else { format!("[{}/{}] ", self.done, self.all) }
    }

    /// One line for all ranges, where not each has its own.
    fn sum_up(&mut self, screen: &MultiProgress) {
        if self.all <= MAX_RANGES {
            return;
        }
        let mut stages: BTreeMap<RangeStage, usize> = BTreeMap::new();
        self.stages.values().for_each(|stage| *stages.entry(*stage).or_default() += 1);
        let words = stages.into_iter().map(|(stage, count)| format!(", {count} in {stage}"));
        let text = format!("{} of {} done{}", self.done, self.all, words.collect::<String>());
        let sum = self.sum.get_or_insert_with(|| {
            let bar = screen.add(ProgressBar::no_length());
            bar.set_style(style("{msg} {elapsed}"));
            bar
        });
        sum.set_message(text);
        if self.done == self.all {
            sum.finish_and_clear();
        }
    }

    fn entered(&mut self, screen: &MultiProgress, range: &RangeName, stage: RangeStage) {
        if MAX_RANGES <= self.ranges.len() && !self.ranges.contains_key(range) {
            return;
        }
        let bar = self.ranges.entry(range.clone()).or_insert_with(|| {
            let bar = screen.insert(0, ProgressBar::no_length().with_prefix(range.to_string()));
            bar.set_style(style("{spinner} {prefix:20} {msg} {elapsed}"));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_message(stage.to_string());
    }

    fn image(&mut self, screen: &MultiProgress, range: &RangeName, event: &range::Event) {
        let key = (range.clone(), event.reference.clone());
        if let EventKind::Done(_) = event.kind {
            if let Some(bar) = self.images.remove(&key) {
                bar.finish_and_clear();
            }
            return;
        }
        if !self.images.contains_key(&key) {
            let Some(above) = self.ranges.get(range).filter(|_| self.images.len() < MAX_BARS)
            else {
                return;
            };
            let bar = ProgressBar::new(0).with_prefix(event.reference.to_string());
            let bar = screen.insert_after(above, bar);
            bar.set_style(style(
                "    {prefix:40} {msg:8} {bar:20} {binary_bytes:>11}/{binary_total_bytes}",
            ));
            self.images.insert(key.clone(), bar);
        }
        let Some(bar) = self.images.get(&key) else { return };
        match &event.kind {
            EventKind::Entered(stage) => bar.set_message(format!("{stage:?}").to_lowercase()),
            EventKind::Planned { bytes_to_move, .. } => bar.set_length(*bytes_to_move),
            EventKind::Moved { bytes_moved } => bar.set_position(*bytes_moved),
            EventKind::Done(_) => {}
        }
    }

    fn done(&mut self, screen: &MultiProgress, report: &RangeReport) {
        self.images.retain(|(range, _), bar| {
            let stays = *range != report.range;
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        if let Some(bar) = self.ranges.remove(&report.range) {
            bar.finish_and_clear();
        }
        say(screen, &format!("{}{}", self.so_far(), summary(report)));
    }
}

/// A line that stays, above those that move.
fn say(screen: &MultiProgress, text: &str) {
    if screen.println(text).is_err() {
        eprintln!("{text}");
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are written in this file, and a test parses them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_were_asked_for_are_counted_and_no_others() {
        let report = RangeReport {
            range: "a".parse().unwrap(),
            engine: None,
            provision: None,
            stages: Vec::new(),
            images: Vec::new(),
            error: None,
        };
        let mut lines = Lines { all: 50, ..Lines::default() };
        let event = |kind| RangeEvent { range: report.range.clone(), kind };
        lines.count(&event(RangeEventKind::Entered(RangeStage::Clone)));
        assert_eq!((lines.stages.len(), lines.so_far().as_str()), (1, "[0/50] "));
        lines.count(&event(RangeEventKind::Done(report.clone())));
        assert_eq!((lines.stages.len(), lines.so_far().as_str()), (0, "[1/50] "));
        lines.asked = vec!["b".parse().unwrap()];
        lines.count(&event(RangeEventKind::Done(report.clone())));
        assert_eq!(lines.so_far(), "[1/50] ", "a seed is none of those that were asked for");
    }
}
