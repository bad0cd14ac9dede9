//! Behaviour through the public surface: the library and the `uphill` binary.

mod by_hand;
mod cli;
mod common;
mod crash;
mod database;
mod disk;
mod examples;
mod faults;
mod golden;
mod indexing;
mod interop;
mod interrupts;
mod locks;
mod python;
mod readers;
mod reuse;
mod runs;
mod scorers;
mod scorers_command;
mod scorers_http;
mod stages;
mod sums;
