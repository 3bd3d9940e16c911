//! What the tests of immediate commands start from.

use std::sync::Arc;

use gyre_cluster::level::Consistency;
use gyre_protocol::Resp;
use gyre_storage::UnixMillis;

use crate::session::registry::{Accepted, ClientEntry, ClientRegistry};
use crate::session::settings::{ReplyMode, SessionSettings};
use crate::worker::mailbox::mailbox;

/// The settings of a fresh, authenticated connection with id 7 at QUORUM.
pub fn settings() -> SessionSettings {
    SessionSettings {
        id: 7,
        db: 0,
        resp: Resp::Two,
        authenticated: true,
        name: Vec::new(),
        library_name: Vec::new(),
        library_version: Vec::new(),
        levels: (Consistency::Quorum, Consistency::Quorum).into(),
        levels_before_readonly: None,
        reply_mode: ReplyMode::On,
        no_evict: false,
        no_touch: false,
        close_after_reply: false,
    }
}

/// Lists a connection from 10.0.0.1 and `port` to 10.0.0.2:6379, accepted at time 1,000 on descriptor 8.
pub fn connect(clients: &ClientRegistry, settings: SessionSettings, port: u16) -> Arc<ClientEntry> {
    let accepted = Accepted {
        address: ([10, 0, 0, 1], port).into(),
        local_address: ([10, 0, 0, 2], 6379).into(),
        descriptor: 8,
        mailbox: mailbox().0,
        now: UnixMillis(1_000),
    };
    clients.insert(settings, accepted)
}
