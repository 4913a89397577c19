//! A far source with a near store in front of it.
