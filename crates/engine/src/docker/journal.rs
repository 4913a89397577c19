//! What each manifest consists of, remembered by digest.
