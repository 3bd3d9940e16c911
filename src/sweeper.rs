//! The sweeping of expired rows, on worker 0: carries out what [`gyre_cluster::sweep::Sweeper`] decides.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gyre_cluster::sweep::{Sweep, Sweeper};

use crate::worker::Worker;
use crate::worker::turn::blocking_timed;

/// How often is looked whether the node has a time.
const SETTLE_CHECK: Duration = Duration::from_millis(100);

/// Sweeps for ever.
pub async fn run(worker: Rc<Worker>) {
    let node = Arc::clone(worker.node());
    let interval = || Duration::from_secs(node.config.load().ttl_sweep_interval_seconds);
    let drift_ms = node.config.load().max_clock_drift_ms;
    let mut core = Sweeper::new(interval(), drift_ms, worker.now().mono);
    loop {
        core.set_interval(interval());
        if !node.clock.is_settled() {
            // What has expired only the time can tell.
            tokio::time::sleep(SETTLE_CHECK).await;
            continue;
        }
        let Some(Sweep { pass, until, limit }) = core.step(worker.now()) else {
            tokio::time::sleep(core.wait(worker.now().mono).max(Duration::from_millis(1))).await;
            continue;
        };
        let store = Arc::clone(&node.store);
        let step = blocking_timed(move || store.sweep(pass, until, limit)).await;
        let step = step.inspect_err(|error| tracing::error!(%error, "cannot sweep expired keys"));
        let (step, took) = step.ok().unzip();
        let swept = step.as_ref().map_or(0, |step| step.swept);
        node.metrics.expired_keys.fetch_add(swept as u64, Ordering::Relaxed);
        core.swept(worker.now().mono, took.unwrap_or_default(), step);
        node.sweeping.store(Arc::new(core.status()));
    }
}
