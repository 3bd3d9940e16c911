//! `simulate`: runs seeds, shows progress, and tells how to run a failing one again.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use gyre_simulation::{Mutation, Options, Report, replay_command, run_seeds, split};

const USAGE: &str = "usage: simulate [--seeds COUNT] [--from SEED] [--seed SEED] [--nodes 1-200] [--hours HOURS] [--threads COUNT] \
                     [--mutation NAME] [--split] [--purge]";
/// How often progress is shown, in seeds.
const PROGRESS: u64 = 50;

struct Arguments {
    seeds: std::ops::Range<u64>,
    threads: usize,
    options: Options,
    is_split: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("{what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let finished = AtomicU64::new(0);
    let done = |seed: u64, _: &Report| {
        let finished = finished.fetch_add(1, Ordering::Relaxed) + 1;
        if finished.is_multiple_of(PROGRESS) {
            println!("{finished} seeds well, seed {seed} among the last, {:.0?}", started.elapsed());
        }
    };
    let Arguments { seeds, threads, options, is_split } = arguments;
    if is_split {
        return run_splits(seeds, options.nodes.unwrap_or(50));
    }
    match run_seeds(seeds, options, threads, done) {
        Ok(report) => {
            let minutes = started.elapsed().as_secs_f64() / 60.0;
            println!("{report}");
            println!("{:.1} simulated hours a minute ({minutes:.2} minutes)", report.hours / minutes);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("seed {} failed: {}", failure.seed, failure.what);
            eprintln!("again: {}", replay_command(failure.seed, options));
            ExitCode::FAILURE
        }
    }
}

/// The classic case, one seed after the other.
fn run_splits(seeds: std::ops::Range<u64>, nodes: usize) -> ExitCode {
    for seed in seeds {
        match split(seed, nodes) {
            Ok(report) => println!("{report}"),
            Err(failure) => {
                eprintln!("seed {seed} failed: {}", failure.what);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn parse(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut values = BTreeMap::new();
    let mut words = words;
    let (mut is_split, mut is_purging) = (false, false);
    while let Some(name) = words.next() {
        if name == "--split" || name == "--purge" {
            (is_split, is_purging) = (is_split || name == "--split", is_purging || name == "--purge");
            continue;
        }
        let known = ["--seeds", "--from", "--seed", "--nodes", "--hours", "--threads", "--mutation"];
        let value = words.next().filter(|_| known.contains(&name.as_str()));
        values.insert(name.clone(), value.ok_or_else(|| format!("what is {name}?"))?);
    }
    let seed: Option<u64> = number(&values, "--seed")?;
    let from: u64 = number(&values, "--from")?.unwrap_or(0);
    let count: u64 = number(&values, "--seeds")?.unwrap_or(200);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = Options {
        nodes: number(&values, "--nodes")?,
        hours: number(&values, "--hours")?,
        mutation: number::<Mutation>(&values, "--mutation")?,
        is_purging,
    };
    Ok(Arguments {
        seeds: seed.map_or(from..from + count, |seed| seed..seed + 1),
        threads: number(&values, "--threads")?.unwrap_or(cores),
        options,
        is_split,
    })
}

fn number<T: FromStr>(values: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    let value =
        values.get(name).map(|text| text.parse::<T>().map_err(|error| format!("{name} {text}: {error}")));
    value.transpose()
}
