//! The crate's public behaviour on whole projects in folders.

#![expect(clippy::unwrap_used, reason = "a failed step should stop the test where it is")]
#![expect(clippy::print_stdout, reason = "prints the number of compared projects")]

mod corpus;
mod read;
