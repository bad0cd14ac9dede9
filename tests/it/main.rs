//! Behaviour through the public surface: the library and the `uphill` binary.

mod bridge;
mod by_hand;
mod cli;
mod common;
mod database;
mod determinism;
mod examples;
mod formats;
mod golden;
mod hostile;
mod indexing;
mod interop;
mod mutations;
mod pinned;
mod python;
mod reuse;
mod runs;
mod scorers;
mod scorers_command;
mod scorers_http;
mod stages;
mod sums;
