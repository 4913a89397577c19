//! A Docker engine inside the test process.
