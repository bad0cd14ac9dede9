//! Behaviour through the public surface: the library and the `uphill` binary.

mod by_hand;
mod cli;
mod common;
mod database;
mod examples;
mod golden;
mod indexing;
mod interop;
mod python;
mod reuse;
mod runs;
mod scorers;
mod scorers_command;
mod scorers_http;
mod stages;
mod sums;
mod surrogate;
