//! Behaviour through the public surface: the library and the `uphill` binary.

mod by_hand;
mod cli;
mod common;
mod crash;
mod database;
mod disk;
mod evaluate;
mod examples;
mod faults;
mod golden;
mod indexing;
mod interop;
mod interrupts;
mod locks;
mod numpy;
mod python;
mod readers;
mod reuse;
mod runs;
mod scorers;
mod scorers_command;
mod scorers_http;
mod scorers_interrupted;
mod stages;
mod sums;
mod updates;
