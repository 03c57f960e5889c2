//! Whole-process figures, as ratios taken side by side in one run: `make bench`.
//!
//! Machines differ and drift, so no figure here is compared with a number from another day. Each comparison runs its
//! two sides alternately and reports the median of the pairs' ratios. Targets are printed beside the figures; nothing
//! fails when one is missed, people read it.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench is a test: it may stop loudly, prints its figures and starts the programs it compares"
)]

#[path = "whole/buckets.rs"]
mod buckets;
#[path = "whole/clip.rs"]
mod clip;
#[path = "whole/fleet.rs"]
mod fleet;
#[path = "whole/idle.rs"]
mod idle;
#[path = "whole/ladder.rs"]
mod ladder;
#[path = "whole/latency.rs"]
mod latency;
#[path = "whole/overhead.rs"]
mod overhead;
#[path = "whole/process.rs"]
mod process;
#[path = "whole/readers.rs"]
mod readers;
#[path = "whole/report.rs"]
mod report;
#[path = "whole/sandbox.rs"]
mod sandbox;
#[path = "whole/store.rs"]
mod store;
#[path = "whole/submit.rs"]
mod submit;

use report::Report;

fn main() {
    // `cargo bench NAME` runs what contains NAME; cargo itself adds --bench.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut report = Report::new();
    runtime.block_on(async {
        if runs("idle") {
            idle::run(&mut report).await;
        }
        if runs("fleet") {
            fleet::run(&mut report).await;
        }
        if runs("submit") {
            submit::run(&mut report).await;
        }
        if runs("store") {
            store::run(&mut report).await;
        }
        if runs("latency") {
            latency::run(&mut report).await;
        }
        if runs("overhead") {
            overhead::run(&mut report).await;
        }
        if runs("ladder") {
            ladder::run(&mut report).await;
        }
        if runs("sandbox") {
            sandbox::run(&mut report);
        }
        if runs("buckets") {
            buckets::run(&mut report).await;
        }
        if runs("readers") {
            readers::run(&mut report).await;
        }
    });
    report.print();
}
