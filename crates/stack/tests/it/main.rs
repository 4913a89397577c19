//! What the crate promises, on whole projects in folders.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop and say where")]
#![expect(clippy::print_stdout, reason = "what was compared, for a person")]

mod corpus;
mod read;
