//! Running seeds: one, or many side by side.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::plan::{Options, Plan};
use crate::report::Report;
use crate::world::World;

/// A seed under which something was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`] if a checker objects, or a core panics.
pub fn run_seed(seed: u64, options: Options) -> Result<Report, Failure> {
    let plan = if options.is_purging { Plan::purging } else { Plan::new };
    let run = || World::new(plan(seed, options)).run();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|what| Failure { seed, what }),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(Failure { seed, what: format!("a panic: {}", text.unwrap_or_default()) })
        }
    }
}

/// Runs `seeds` on `threads` threads until one fails; `done` is told of each that did not.
///
/// # Errors
/// The failure of the least failing seed among those that were run.
pub fn run_seeds(
    seeds: std::ops::Range<u64>,
    options: Options,
    threads: usize,
    done: impl Fn(u64, &Report) + Sync,
) -> Result<Report, Failure> {
    let next = AtomicU64::new(seeds.start);
    let has_failed = AtomicBool::new(false);
    let total = Mutex::new(Report::default());
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            match run_seed(seed, options) {
                Ok(report) => {
                    done(seed, &report);
                    total.lock().expect("no thread panics with it").add(&report);
                }
                Err(failure) => {
                    has_failed.store(true, Ordering::Relaxed);
                    failures.lock().expect("no thread panics with it").push(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut failures = failures.into_inner().expect("all threads have ended");
    failures.sort_by_key(|failure: &Failure| failure.seed);
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(total.into_inner().expect("all threads have ended")),
    }
}

/// The command that runs one seed again.
#[must_use]
pub fn replay_command(seed: u64, options: Options) -> String {
    let mut command = format!("cargo run -p gyre-simulation --bin simulate -- --seed {seed}");
    if let Some(nodes) = options.nodes {
        command.push_str(&format!(" --nodes {nodes}"));
    }
    if let Some(hours) = options.hours {
        command.push_str(&format!(" --hours {hours}"));
    }
    if options.is_purging {
        command.push_str(" --purge");
    }
    if let Some(mutation) = options.mutation {
        command.push_str(&format!(" --mutation {}", mutation.name()));
    }
    command
}
