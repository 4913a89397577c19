//! One read for many: every reader of a digest follows the same ingest.
