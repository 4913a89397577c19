//! Set-up, tests, demo and bulk provisioning.

fn main() {}
