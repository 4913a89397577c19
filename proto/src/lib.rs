//! The protocol longshore.v1: bindings, and both ends of it as the core's own traits.
