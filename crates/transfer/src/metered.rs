//! What went through a source, as counters and one span per blob.
