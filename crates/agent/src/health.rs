//! Asking a running agent whether it is well.
