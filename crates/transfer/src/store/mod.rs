//! Where blobs are kept: in memory or as files.
