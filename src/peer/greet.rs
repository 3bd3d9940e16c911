//! The handshake on a fresh connection: the pure [`Handshake`] and the socket under it.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use gyre_cluster::handshake::{
    Handshake, HandshakeError, Identity, Nonce, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN,
};
use gyre_cluster::handshake::{Peer, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::Node;

/// How long the other side may take for the whole handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(3);

/// Why no link came about.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    /// The other side is not one to talk to.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The other side was away for too long, and has not emptied itself yet: nothing of it may be taken.
    #[error(
        "the peer was away for longer than tombstone-grace and must rejoin empty: what it holds is refused"
    )]
    Lapsed,
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The other side kept silent.
    #[error("the peer did not finish the handshake in {} s", HANDSHAKE_TIME_MAX.as_secs())]
    Silent,
}

/// What this node says of itself to every peer.
pub(super) fn identity(node: &Node) -> Identity {
    Identity {
        cluster_name: node.config.load().cluster_name.clone(),
        cluster_id: node.topology.load().as_ref().as_ref().map_or(0, |topology| topology.cluster_id),
        node: node.id,
        incarnation: node.incarnation(),
        instance: node.instance,
        versions: (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX),
    }
}

/// Greets on a connection that this node has opened. Answers the peer and the bytes that came after its handshake.
pub(super) async fn dialled(
    stream: &mut TcpStream,
    node: &Node,
    worker: usize,
) -> Result<(Peer, BytesMut), GreetError> {
    let mut out = Vec::new();
    let handshake = Handshake::dial(&identity(node), number(worker), &secret(node), nonce(), &mut out);
    bounded(run(stream, handshake, out)).await
}

/// Greets on a connection that this node has accepted.
pub(super) async fn accepted(
    stream: &mut TcpStream,
    node: &Node,
    worker: usize,
) -> Result<(Peer, BytesMut), GreetError> {
    let handshake = Handshake::accept(&identity(node), number(worker), &secret(node), nonce());
    bounded(run(stream, handshake, Vec::new())).await
}

async fn bounded<T>(greeting: impl Future<Output = Result<T, GreetError>>) -> Result<T, GreetError> {
    tokio::time::timeout(HANDSHAKE_TIME_MAX, greeting).await.unwrap_or(Err(GreetError::Silent))
}

async fn run(
    stream: &mut TcpStream,
    mut handshake: Handshake,
    mut out: Vec<u8>,
) -> Result<(Peer, BytesMut), GreetError> {
    let mut buffer = BytesMut::new();
    loop {
        stream.write_all(&out).await?;
        out.clear();
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let progress = handshake.receive(&buffer, &mut out);
        // Also a refusal is told, and the last proof is sent before the first frame.
        stream.write_all(&out).await?;
        out.clear();
        let progress = progress?;
        buffer.advance(progress.consumed);
        if let Some(peer) = progress.peer {
            return Ok((peer, buffer));
        }
    }
}

fn secret(node: &Node) -> Secret {
    Secret(node.config.load().cluster_secret.expose().as_bytes().to_vec())
}

fn nonce() -> Nonce {
    rand::random()
}

fn number(worker: usize) -> u16 {
    u16::try_from(worker).unwrap_or(u16::MAX)
}
