//! A save, split into blobs as it streams.
