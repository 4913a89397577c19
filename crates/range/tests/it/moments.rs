//! Moments and targets: the dice of the kills.

use std::fmt;
use std::time::Duration;

/// Targets of the kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    HostAgent,
    DindAgent,
    InnerEngine,
    Range,
    HostEngine,
    /// Not killed: every connection between range and host is cut.
    Connections,
}

impl Target {
    pub(crate) const ALL: [Self; 6] = [
        Self::HostAgent,
        Self::InnerEngine,
        Self::Connections,
        Self::DindAgent,
        Self::HostEngine,
        Self::Range,
    ];
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::HostAgent => "host agent",
            Self::DindAgent => "dind agent",
            Self::InnerEngine => "inner dockerd",
            Self::Range => "whole range",
            Self::HostEngine => "host's engine",
            Self::Connections => "connections",
        })
    }
}

/// Phases at the moment of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The host's engine gives the image to the host agent.
    Export,
    /// Layers travel to the range.
    Wire,
    /// All bytes are in the range, and its engine works on them.
    Load,
}

impl Phase {
    pub(crate) const ALL: [Self; 3] = [Self::Export, Self::Wire, Self::Load];
}

/// Numbers that look random, the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// A moment on an image's way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) phase: Phase,
    /// At which byte, where bytes move.
    pub(crate) offset: u64,
    /// Pause after the last byte, in a phase without bytes.
    pub(crate) pause: Duration,
}

impl Moment {
    /// A moment of `phase`, for an image of `size` bytes that an engine works on for `load`.
    pub(crate) fn throw(dice: &mut Dice, phase: Phase, size: u64, load: Duration) -> Self {
        const STEPS: u32 = 1 << 20;
        let share = dice.below(STEPS.into()) as f64 / f64::from(STEPS);
        // The last part of the load is left out: a machine that is quicker now is done by then.
        Self { phase, offset: 1 + dice.below(size), pause: load.mul_f64(share * 0.7) }
    }
}
