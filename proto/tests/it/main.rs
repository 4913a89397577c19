//! The protocol's integration tests: both ends over a small pipe, and the committed bindings.

mod codegen;
