//! The command line: arguments, configuration, output and exit codes.
//!
//! Each binary calls the `main` of its own module here, so that the linker leaves the other tools out. Underneath,
//! every tool is a function `run(arguments, environment, streams) -> exit code` that touches nothing global, so that
//! tests call it in their own process.
//!
//! ```
//! use p2psip::cli::{Env, Io, lookup};
//!
//! let (mut out, mut err) = (Vec::new(), Vec::new());
//! let code = lookup::run(vec!["--version".into()], &Env::new("/"), &mut Io::captured(&mut out, &mut err));
//! assert_eq!(code, 0);
//! assert!(out.starts_with(b"p2p-lookup "));
//! ```

mod args;
mod check;
mod config;
mod descriptors;
mod io;
mod lines;
mod locate;
mod logging;
mod output;
mod password;
mod public;
mod runtime;
mod service_manager;
mod settings;
mod tool;

pub mod answer;
pub mod discover;
pub mod enroll;
pub mod invite;
pub mod join;
pub mod lab;
pub mod lookup;
pub mod manual;
pub mod publish;
pub mod register;
pub mod shell;

pub use io::{Env, Io, Signal, Signals};
pub use tool::{Example, Tool};

/// Every tool, in the order in which manuals list them.
pub const TOOLS: [&Tool; 10] = [
    &answer::TOOL,
    &discover::TOOL,
    &enroll::TOOL,
    &invite::TOOL,
    &join::TOOL,
    &lab::TOOL,
    &lookup::TOOL,
    &publish::TOOL,
    &register::TOOL,
    &shell::TOOL,
];
