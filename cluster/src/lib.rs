//! The pure cores of a Gyre cluster: what decides, without socket, clock, task or ambient randomness.

pub mod clock;
pub mod frame;
pub mod handshake;
pub mod modify;
pub mod node;
pub mod ring;
pub mod time;
pub mod topology;
pub mod wire;
