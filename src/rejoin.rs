//! Rejoining empty: what becomes of a node that was away for longer than deletions are remembered.
//!
//! The topology document says that its data has lapsed; peers refuse all that it says but its own document. It learns the
//! document from the first of them that it reaches. Then it writes down who it is in the file `rejoin` of its data
//! directory and ends its process in order; the program begins anew in its place, sets the directory `store` aside as
//! `store.lapsed-N`, where N is the incarnation that now begins, and is that member with an empty store. Nothing is
//! deleted: what is set aside is for the operator to look at and remove. Whatever crashes on the way is done again, as long
//! as the file is there.
//!
//! ```text
//! "gyre rejoin 1\n" | node, incarnation, clock: u64 | the topology document          little-endian
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use gyre_cluster::node::NodeId;
use gyre_cluster::topology::Topology;
use gyre_storage::{Hlc, Store};

use crate::error::StartError;
use crate::node::{META_INCARNATION, META_NODE_ID, META_TOPOLOGY, Node};
use crate::worker::Worker;

const FILE: &str = "rejoin";
const HEADER: &[u8] = b"gyre rejoin 1\n";
/// The directory of the store in the data directory.
pub const STORE: &str = "store";

/// As whom a node comes back.
pub struct Rejoin {
    node: NodeId,
    incarnation: u64,
    /// Nothing was stamped after it.
    clock: Hlc,
    topology: Topology,
}

/// The topology has changed: ends the process if this node's data has lapsed, and closes links to others whose has.
pub fn look(worker: &Rc<Worker>) {
    let node = worker.node();
    let topology = node.topology.load_full();
    let Some(topology) = (*topology).as_ref() else { return };
    worker.step(|turn| {
        topology.lapsed().into_iter().for_each(|member| turn.shell.outboxes.close_every(member));
    });
    if worker.index != 0 || !node.has_lapsed_itself() || node.rejoining.swap(true, Ordering::AcqRel) {
        return;
    }
    tracing::error!(
        "THIS NODE WAS AWAY FOR LONGER THAN tombstone-grace: the others may have forgotten deletions that it has missed, so \
         they refuse what it holds. Its data is set aside in {}.lapsed-*, and it rejoins empty",
        node.config.load().dir.join(STORE).display()
    );
    if let Err(error) = Rejoin::of(node, topology).save(&node.config.load().dir) {
        tracing::error!(%error, "cannot write down as whom this node rejoins: stopping");
    }
    // SIGTERM is handled for as long as the process lives; raising it cannot fail.
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
}

/// Sets the lapsed store of `dir` aside, if there is one. To be called before the store is opened.
///
/// # Errors
/// [`StartError`] if the directory cannot be changed, or the file is damaged.
pub fn prepare(dir: &Path) -> Result<Option<Rejoin>, StartError> {
    let bytes = match fs::read(dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let rejoin = Rejoin::decode(&bytes).ok_or_else(|| StartError::Identity {
        what: format!(
            "{} is damaged; move {STORE} and it away to start this node empty",
            dir.join(FILE).display()
        ),
    })?;
    let aside = dir.join(format!("{STORE}.lapsed-{}", rejoin.incarnation));
    // If it is there, the store is the new one already.
    if dir.join(STORE).exists() && !aside.exists() {
        fs::rename(dir.join(STORE), &aside)?;
        sync(dir)?;
        tracing::warn!("the data of before this node was away is in {}", aside.display());
    }
    Ok(Some(rejoin))
}

impl Rejoin {
    fn of(node: &Node, topology: &Topology) -> Rejoin {
        let known = topology.members.get(&node.id).map_or(0, |member| member.incarnation);
        let incarnation = node.incarnation().max(known) + 1;
        let mut topology = topology.clone();
        topology.return_empty(node.id, incarnation);
        Rejoin { node: node.id, incarnation, clock: node.clock.now(), topology }
    }

    /// Makes the empty `store` that of this member, and forgets that it was to be done.
    ///
    /// # Errors
    /// [`StartError`] if the store or the directory takes nothing.
    pub fn finish(&self, store: &Store, dir: &Path) -> Result<(), StartError> {
        store.meta_put(META_NODE_ID, &self.node.0.to_be_bytes())?;
        // The start that goes on from here counts it up.
        store.meta_put(META_INCARNATION, &(self.incarnation - 1).to_be_bytes())?;
        store.meta_put(META_TOPOLOGY, &self.topology.encode())?;
        store.cover(self.clock)?;
        store.sync()?;
        fs::remove_file(dir.join(FILE))?;
        Ok(sync(dir)?)
    }

    fn save(&self, dir: &Path) -> io::Result<()> {
        let draft = dir.join(format!("{FILE}.new"));
        let mut file = File::create(&draft)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(FILE))?;
        sync(dir)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = HEADER.to_vec();
        for number in [self.node.0, self.incarnation, self.clock.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.topology.encode());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Rejoin> {
        let (node, rest) = bytes.strip_prefix(HEADER)?.split_first_chunk::<8>()?;
        let (incarnation, rest) = rest.split_first_chunk::<8>()?;
        let (clock, topology) = rest.split_first_chunk::<8>()?;
        let [node, incarnation, clock] = [node, incarnation, clock].map(|number| u64::from_le_bytes(*number));
        let topology = Topology::decode(topology).ok()?;
        let node = NodeId::new(node).filter(|_| incarnation > 0)?;
        Some(Rejoin { node, incarnation, clock: Hlc(clock), topology })
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejoin() -> Rejoin {
        let topology = Topology::form(7, "test", 3, []);
        Rejoin { node: NodeId(5), incarnation: 9, clock: Hlc(77), topology }
    }

    #[test]
    fn the_store_is_set_aside_once_and_nothing_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        assert!(prepare(dir.path()).unwrap().is_none());
        fs::create_dir(dir.path().join(STORE)).unwrap();
        fs::write(dir.path().join(STORE).join("data"), "old").unwrap();
        rejoin().save(dir.path()).unwrap();
        let read = prepare(dir.path()).unwrap().unwrap();
        assert_eq!((read.node, read.incarnation, read.clock), (NodeId(5), 9, Hlc(77)));
        let aside = dir.path().join("store.lapsed-9");
        assert_eq!(fs::read(aside.join("data")).unwrap(), b"old");
        assert!(!dir.path().join(STORE).exists());
        // A crash on the way: the new store stays where it is.
        fs::create_dir(dir.path().join(STORE)).unwrap();
        prepare(dir.path()).unwrap().unwrap();
        assert!(dir.path().join(STORE).exists());
        let store = Store::in_memory();
        read.finish(&store, dir.path()).unwrap();
        assert_eq!(store.meta_get(META_INCARNATION).unwrap(), Some(8_u64.to_be_bytes().to_vec()));
        assert!(prepare(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = rejoin().encode();
        for cut in 0..bytes.len() {
            assert!(Rejoin::decode(&bytes[..cut]).is_none());
        }
        fs::write(dir.path().join(FILE), &bytes[..20]).unwrap();
        assert!(prepare(dir.path()).is_err());
    }
}
