//! Learning which keys there are, on worker 0: after a start the row cache is told of every key, so that it can answer
//! for those that are not there. See [`gyre_storage::Store::learn_keys`].

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::worker::Worker;
use crate::worker::turn::blocking;

/// Keys in a step: a few milliseconds of work.
const STEP_KEYS: usize = 4_096;
/// How long to rest after a step, in times of the step.
const REST: u32 = 4;
/// How soon to look again when there was nothing to learn, or it could not be read.
const PAUSE: Duration = Duration::from_secs(10);

/// Learns, after a start and whenever what was learnt does not hold any more.
pub async fn run(worker: Rc<Worker>) {
    let store = &worker.node().store;
    loop {
        let begun = Instant::now();
        let is_news = !store.knows_all_keys();
        while let Some(took) = step(&worker).await {
            tokio::time::sleep(took * REST).await;
        }
        if is_news && store.knows_all_keys() {
            tracing::debug!(seconds = begun.elapsed().as_secs_f64(), "the row cache knows of every key");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// How long a step took; `None` if nothing is left to learn, or it failed.
async fn step(worker: &Worker) -> Option<Duration> {
    let store = Arc::clone(&worker.node().store);
    let step = blocking(move || {
        // Waiting for a thread is no work: it is not to be made up for by resting.
        let started = Instant::now();
        store.learn_keys(STEP_KEYS).map(|is_more| is_more.then(|| started.elapsed()))
    });
    step.await.inspect_err(|error| tracing::warn!(%error, "cannot look which keys there are")).ok().flatten()
}
