//! Rust clients against a running cluster: redis-rs (blocking, async, and both cluster drivers) and fred.
//!
//! One process runs the cases named on its command line for one client and one entry node, and prints a
//! JSON line per case, as the runners of every other language do (`compat/README.md`).

mod face;
mod fred_faces;
mod job;
mod redis_rs;
mod workload;

use job::Job;

fn main() {
    let job = Job::from_arguments(std::env::args().skip(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be built");
    runtime.block_on(async {
        match job.client.as_str() {
            "redis-rs" => workload::run::<redis_rs::Blocking>(&job).await,
            "redis-rs-async" => workload::run::<redis_rs::Async>(&job).await,
            "redis-rs-cluster" => workload::run::<redis_rs::Cluster>(&job).await,
            "redis-rs-cluster-async" => workload::run::<redis_rs::ClusterAsync>(&job).await,
            "fred" => workload::run::<fred_faces::Resp2>(&job).await,
            "fred-resp3" => workload::run::<fred_faces::Resp3>(&job).await,
            "fred-cluster" => workload::run::<fred_faces::Cluster>(&job).await,
            other => panic!("no such client: {other}"),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(100));
}
