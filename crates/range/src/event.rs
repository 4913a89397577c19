//! Events of ranges while a command runs, as data: for a terminal or a log.

use control::RangeName;

use crate::report::RangeReport;
use crate::stage::RangeStage;

/// An event of one range.
#[derive(Clone, Debug)]
pub struct RangeEvent {
    /// The range.
    pub range: RangeName,
    /// The event.
    pub kind: RangeEventKind,
}

/// Kinds of events.
#[derive(Clone, Debug)]
pub enum RangeEventKind {
    /// A stage began.
    Entered(RangeStage),
    /// Something happened to one of its images.
    Image(transfer::Event),
    /// A detour: something failed and was worked around. A sentence for people.
    Noted(String),
    /// The range's result; its last event.
    Done(RangeReport),
}

/// Receives events from any task; must not block.
pub trait RangeObserver: Send + Sync {
    /// Receives one event.
    fn observe(&self, event: RangeEvent);
}

impl<F: Fn(RangeEvent) + Send + Sync> RangeObserver for F {
    fn observe(&self, event: RangeEvent) {
        self(event);
    }
}
