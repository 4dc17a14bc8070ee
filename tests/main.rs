//! The integration tests, in one binary: linking it once is what takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod adapter;
mod attacks;
mod behaviour;
mod bootstrap;
mod calls;
mod cli;
mod discover;
mod enroll;
mod faults;
mod forge;
mod forged;
mod gatekeeper;
mod json_schema;
mod lab;
mod layers;
mod liars;
mod locate;
mod overlay;
mod process;
mod protocol;
mod proxy;
mod proxy_faults;
mod public;
mod publish;
mod readme;
mod services;
mod shell;
mod sip_properties;
mod sip_streams;
mod support;
mod tools;
mod torture;
mod trace;
mod world;
