//! Which layers an engine has.
