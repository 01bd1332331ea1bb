//! What tracing costs, beside what nothing, a bare loop and other tools cost, in one run: `cargo bench`.
//!
//! Every figure is a median of rounds in which all the columns take turns, so that the hour, the host and the heat of
//! the machine are the same for each. A round in which a record is missing fails. Nothing here is an assertion about
//! time: docs/performance.md has the figures and what they mean.

#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has nothing better to do")]

mod cost;
mod delay;
mod ebpf;
mod flat;
mod floor;
mod kdump;
mod load;
mod looped;
mod minute;
mod mount;
mod seen;
mod stream;
mod sys;
mod table;

use clap::{Parser, ValueEnum};

/// Measures what tracing costs.
#[derive(Parser, Debug)]
struct Options {
    /// What to measure; all without
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Rounds of each figure
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds that one load should take under a tracer
    #[arg(long, default_value_t = 300)]
    ms: u64,
    /// Seconds of each load of the minute
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Only the rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Ignored: cargo adds it
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// Cost of a call, beside other tools
    Cost,
    /// Cost with many processes, of set and clear, of a listing, memory
    Flat,
    /// Throughput and delay of the stream, and of kdump
    Stream,
    /// The fastest tracees for a minute each: whether a record is missing
    Minute,
    /// Cost of a call by the eBPF backend, beside its own floor and other tools
    Ebpf,
    /// The same backend at a million records a second, with many processes, set and clear, delay
    EbpfFlat,
}

fn main() {
    let options = Options::parse();
    let wants = |part| options.parts.is_empty() || options.parts.contains(&part);
    if wants(Part::Cost) {
        cost::run(&options);
    }
    if wants(Part::Flat) {
        flat::run(&options);
    }
    if wants(Part::Stream) {
        stream::run(&options);
    }
    if wants(Part::Minute) {
        minute::run(&options);
    }
    if wants(Part::Ebpf) {
        ebpf::run_cost(&options);
    }
    if wants(Part::EbpfFlat) {
        ebpf::run_flat(&options);
    }
}
