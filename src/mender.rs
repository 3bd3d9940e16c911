//! Mending damaged files, on worker 0: has the store save and drop them as soon as a checksum mismatch was met. Anti-entropy
//! then brings back what was lost, since the slots are marked.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::worker::Worker;
use crate::worker::turn::blocking;

/// How often it is looked whether damage was met.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Mends for ever.
pub async fn run(worker: Rc<Worker>) {
    let node = Arc::clone(worker.node());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !node.store.has_damage() {
            continue;
        }
        tracing::error!(
            "a file does not match its checksums: what can be read of it is saved, and the file dropped"
        );
        let store = Arc::clone(&node.store);
        let ring = node.ring.load_full();
        match blocking(move || store.mend(&|slot| ring.replicas(slot).len() > 1)).await {
            Ok(Some(mended)) => {
                let (file, rows_saved, slots) = (mended.file, mended.rows_saved, mended.slots.len());
                tracing::warn!(
                    file,
                    rows_saved,
                    slots,
                    "a damaged file was dropped; its slots wait for other replicas"
                );
            }
            Ok(None) => {}
            Err(error) => tracing::error!(
                %error,
                dir = %node.config.load().dir.display(),
                "a damaged file cannot be mended, and stays: stop this node, move its data directory away, and start it \
                 with the same `--node-id`, so that others give it back what it held"
            ),
        }
    }
}
