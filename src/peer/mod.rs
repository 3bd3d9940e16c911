//! Peers: each worker's own link to every other node, and the links that other nodes' workers make to it.
//!
//! A link carries requests one way and answers the other. The side that dials asks; so two nodes of two workers each
//! have four links between them, and no worker ever hands a request to another.

pub mod dial;
pub mod gossip;
mod greet;
pub mod link;
pub mod membership;
pub mod outbox;
pub mod receive;
pub mod table;

pub use dial::Dialer;
pub use receive::accept;
