//! The integration tests, in one binary: linking it once is what takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cli;
mod json_schema;
mod layers;
mod overlay;
mod support;
mod world;
