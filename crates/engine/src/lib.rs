//! Container engines as image sources and image sinks.
