//! The client connections of a node, across its workers: what CLIENT LIST shows and CLIENT KILL ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use gyre_storage::UnixMillis;
use parking_lot::Mutex;

use crate::session::settings::SessionSettings;
use crate::worker::mailbox::{Letter, Mailbox};

/// One client connection as its node's other workers see it.
pub struct ClientEntry {
    /// `CLIENT ID`.
    pub id: u64,
    /// The client's address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local_address: SocketAddr,
    /// The file descriptor number, for CLIENT LIST.
    pub descriptor: i32,
    /// When it connected.
    pub connected_at: UnixMillis,
    /// When its last command began, in Unix milliseconds.
    pub last_active_ms: AtomicU64,
    /// How many commands it has sent.
    pub commands: AtomicU64,
    /// A copy of its settings, refreshed when a command changes them.
    pub settings: Mutex<SessionSettings>,
    /// Its last command, as a [`crate::metrics::CommandIndex`].
    pub last_command: AtomicUsize,
    mailbox: Mailbox,
    killed: AtomicBool,
}

impl ClientEntry {
    /// Asks the connection's worker to close it.
    pub fn kill(&self) {
        if !self.killed.swap(true, Ordering::AcqRel) {
            // A worker that is gone has closed its connections.
            let _ = self.mailbox.send(Letter::Kill(self.id));
        }
    }

    /// Whether [`ClientEntry::kill`] was called.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Refreshes the copy of the settings that other workers see.
    pub fn note_settings(&self, settings: &SessionSettings) {
        self.settings.lock().clone_from(settings);
    }
}

/// What is known of a connection when it is accepted.
pub struct Accepted {
    /// The client's address.
    pub address: SocketAddr,
    /// The address it connected to.
    pub local_address: SocketAddr,
    /// The file descriptor number.
    pub descriptor: i32,
    /// The mailbox of the worker that serves it.
    pub mailbox: Mailbox,
    /// The time.
    pub now: UnixMillis,
}

/// All client connections of a node.
#[derive(Default)]
pub struct ClientRegistry {
    next_id: AtomicU64,
    clients: Mutex<BTreeMap<u64, Arc<ClientEntry>>>,
    /// Connections accepted since the node started.
    pub accepted: AtomicU64,
    /// Connections refused because of `maxclients`.
    pub refused: AtomicU64,
}

impl ClientRegistry {
    /// A new connection id: 1, 2, 3, …
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lists a connection until [`ClientRegistry::remove`].
    pub fn insert(&self, settings: SessionSettings, accepted: Accepted) -> Arc<ClientEntry> {
        let Accepted { address, local_address, descriptor, mailbox, now } = accepted;
        let entry = Arc::new(ClientEntry {
            id: settings.id,
            address,
            local_address,
            descriptor,
            connected_at: now,
            last_active_ms: AtomicU64::new(now.0),
            commands: AtomicU64::new(0),
            settings: Mutex::new(settings),
            last_command: AtomicUsize::new(0),
            mailbox,
            killed: AtomicBool::new(false),
        });
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.clients.lock().insert(entry.id, Arc::clone(&entry));
        entry
    }

    /// Takes a closed connection off the list.
    pub fn remove(&self, id: u64) {
        self.clients.lock().remove(&id);
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.clients.lock().is_empty()
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.clients.lock().len()
    }

    /// All connections, by ascending id.
    pub fn all(&self) -> Vec<Arc<ClientEntry>> {
        self.clients.lock().values().cloned().collect()
    }
}
