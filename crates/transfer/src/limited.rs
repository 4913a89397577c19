//! Bounds on streams and bytes in flight.
