//! The host agent: serves the images that this host's engine holds.
