//! The pure cores of a Gyre cluster: what decides, without socket, clock, task or ambient randomness.

pub mod clock;
pub mod coordinator;
pub mod forming;
pub mod frame;
pub mod gossip;
pub mod handshake;
pub mod hints;
pub mod latency;
pub mod level;
pub mod message;
pub mod modify;
pub mod node;
pub mod outcome;
pub mod purge;
mod random;
pub mod repair;
pub mod ring;
pub mod sweep;
pub mod time;
pub mod topology;
pub mod wire;
