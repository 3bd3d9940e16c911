//! The `gyre` program.

use std::process::ExitCode;

/// One allocator for Rust and RocksDB alike.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    gyre::cli::run()
}
