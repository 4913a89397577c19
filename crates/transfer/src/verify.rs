//! The trust boundary: bytes enter unverified, and leave verified or not at all.
