//! The flags that say what the blob store holds, and how much of it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use process::units::{ByteSize, UnitError, byte_size};
use transfer::store::{Mark, Policy};
use transfer::stored::Alone;

/// Limits of the store.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreFlags {
    /// Bytes of layers above which those that were read least recently, and that no range is
    /// reading, are removed: a size, a share of the store's file system, or `off`. They are taken
    /// from the engine again when they are next needed.
    #[arg(
        long,
        value_name = "SIZE|PERCENT|off",
        env = "LONGSHORE_STORE_HIGH_WATER",
        default_value_t = Amount::Share(80)
    )]
    pub store_high_water: Amount,

    /// Bytes of layers down to which they are removed then.
    #[arg(
        long,
        value_name = "SIZE|PERCENT",
        env = "LONGSHORE_STORE_LOW_WATER",
        default_value_t = Amount::Share(70)
    )]
    pub store_low_water: Amount,

    /// Space to keep free on the store's file system, and never more than a tenth of it. Layers are
    /// removed to keep it free as far as possible; a layer that would not leave it free is not
    /// taken in.
    #[arg(
        long,
        value_name = "SIZE|PERCENT|off",
        env = "LONGSHORE_STORE_RESERVE",
        default_value_t = Amount::Size(ByteSize(1 << 30))
    )]
    pub store_reserve: Amount,

    /// Keep layers that can be read from their source again at any offset: `always`, `never`, or
    /// `auto`, while more than one range is served. A layer that two ranges want at the same time
    /// is kept in any case, and so are layers that `save` exports and decompressed layers.
    #[arg(long, value_name = "WHEN", env = "LONGSHORE_KEEP_LAYERS", default_value = "auto")]
    pub keep_layers: KeepLayers,
}

/// Policy for layers that can be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeepLayers {
    /// While more than one range is served.
    Auto,
    /// Always.
    Always,
    /// Only while several read it at once.
    Never,
}

impl KeepLayers {
    /// Returns a check whether a layer's reader is alone, by the number of served ranges that
    /// `ranges` returns; `None` if every layer is kept.
    #[must_use]
    pub fn alone(self, ranges: impl Fn() -> usize + Send + Sync + 'static) -> Option<Alone> {
        match self {
            Self::Auto => Some(Arc::new(move || ranges() <= 1)),
            Self::Always => None,
            Self::Never => Some(Arc::new(|| true)),
        }
    }
}

/// An amount of storage as people write it: `20GiB`, `80%`, `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// None: what it would bound is not bounded.
    Off,
    /// So many bytes.
    Size(ByteSize),
    /// Percent of the file system, 1 to 100.
    Share(u8),
}

/// Flags of the store that make no sense together, or a text that is no amount.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Neither a size nor a share.
    #[error("expected a size such as 20GiB, a share of the file system such as 80%, or `off`")]
    Text(#[source] UnitError),
    /// A share that is none.
    #[error("{text:?} is not a share of the file system: expected 1% to 100%")]
    Share {
        /// The given text.
        text: String,
    },
    /// Low water above high water, or none below high water.
    #[error("--store-low-water {low} must not be above --store-high-water {high}")]
    Order {
        /// The given low mark.
        low: Amount,
        /// The given high mark.
        high: Amount,
    },
}

impl FromStr for Amount {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Self, AmountError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let Some(share) = text.strip_suffix('%') else {
            return byte_size(text).map(Self::Size).map_err(AmountError::Text);
        };
        match share.parse() {
            Ok(share @ 1..=100) => Ok(Self::Share(share)),
            _ => Err(AmountError::Share { text: text.chars().take(40).collect() }),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Size(size) => size.fmt(f),
            Self::Share(share) => write!(f, "{share}%"),
        }
    }
}

impl Amount {
    fn mark(self) -> Option<Mark> {
        match self {
            Self::Off => None,
            Self::Size(ByteSize(bytes)) => Some(Mark::Bytes(bytes)),
            Self::Share(share) => Some(Mark::Percent(share)),
        }
    }
}

impl StoreFlags {
    /// Checks that the flags agree; a size and a share are compared when the store is open.
    ///
    /// # Errors
    /// [`AmountError::Order`].
    pub fn check(&self) -> Result<(), AmountError> {
        let (high, low) = (self.store_high_water, self.store_low_water);
        let in_order = match (high, low) {
            (Amount::Size(high), Amount::Size(low)) => low <= high,
            (Amount::Share(high), Amount::Share(low)) => low <= high,
            (high, low) => high == Amount::Off || low != Amount::Off,
        };
        if in_order { Ok(()) } else { Err(AmountError::Order { low, high }) }
    }

    /// Returns the collection policy of the store.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let water = self.store_high_water.mark().zip(self.store_low_water.mark());
        Policy { water, reserve: self.store_reserve.mark().unwrap_or(Mark::Bytes(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_size_a_share_or_off() {
        for text in ["off", "0B", "20GiB", "1%", "100%"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        for text in ["", "on", "20", "%", "0%", "101%", "1.5%", "-1%", "20 GiB", "20GB", "1%%"] {
            let is_bytes = text == "20";
            assert_eq!(text.parse::<Amount>().is_ok(), is_bytes, "{text:?}");
        }
    }

    #[test]
    fn a_layer_is_kept_for_others_unless_somebody_says_otherwise() {
        let alone = |keep: KeepLayers, ranges| keep.alone(move || ranges).is_some_and(|ask| ask());
        for (ranges, auto) in [(0, true), (1, true), (2, false), (50, false)] {
            assert_eq!(alone(KeepLayers::Auto, ranges), auto, "{ranges} ranges");
            assert!(!alone(KeepLayers::Always, ranges));
            assert!(alone(KeepLayers::Never, ranges));
        }
    }

    #[test]
    fn low_water_lies_below_high_water() {
        let flags = |high: &str, low: &str| StoreFlags {
            store_high_water: high.parse().unwrap(),
            store_low_water: low.parse().unwrap(),
            store_reserve: Amount::Off,
            keep_layers: KeepLayers::Auto,
        };
        for (high, low, fits) in [
            ("80%", "70%", true),
            ("80%", "80%", true),
            ("70%", "80%", false),
            ("1GiB", "2GiB", false),
            ("1GiB", "70%", true),
            ("80%", "off", false),
            ("off", "70%", true),
            ("off", "off", true),
        ] {
            assert_eq!(flags(high, low).check().is_ok(), fits, "{high} {low}");
        }
        assert_eq!(flags("off", "1GiB").policy().water, None);
        let water = flags("80%", "1GiB").policy().water;
        assert_eq!(water, Some((Mark::Percent(80), Mark::Bytes(1 << 30))));
    }
}
