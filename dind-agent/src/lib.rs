//! The dind agent: keeps the engine of one range in step with what is wanted.
