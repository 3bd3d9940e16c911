//! The handshake of a peer link: both sides prove that they know the cluster secret before anything else is said.
//!
//! ```text
//! dialler  → acceptor   HELLO      who I am, which protocol versions I speak, a nonce
//! dialler  ← acceptor   CHALLENGE  the version chosen, who I am, a nonce
//! dialler  → acceptor   PROOF      HMAC-SHA256(secret, label ‖ 1 ‖ HELLO ‖ CHALLENGE)
//! dialler  ← acceptor   WELCOME    HMAC-SHA256(secret, label ‖ 2 ‖ HELLO ‖ CHALLENGE)     or REFUSED
//! ```
//! Mutual challenge and response as in ISO/IEC 9798-4 (three-pass mutual authentication with a keyed check value):
//! each proof covers the role, so that it cannot be reflected, and everything both sides said, so that neither nonces,
//! ids, names nor version range can be altered on the way. The dialler proves first: whoever only reaches the port
//! gets nothing to guess the secret from. Proofs are compared in constant time (the `hmac` crate). Without a secret
//! the proof is over the empty key, and proves nothing; servers then listen on loopback only.
//!
//! The handshake authenticates the ends of the connection; it does not encrypt it. TLS is to go underneath.
//!
//! Each message is `"GYRE" | type: u8 | payload length: u16 | payload`, at most [`HANDSHAKE_BYTES_MAX`] in all, little-
//! endian. What follows the last message on the connection are [frames](crate::frame).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::node::NodeId;
use crate::topology::CLUSTER_NAME_BYTES_MAX;
use crate::wire::{Malformed, Reader, put_text};

/// The oldest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// The newest protocol version that this build speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;
/// The most bytes of one message of the handshake.
pub const HANDSHAKE_BYTES_MAX: usize = 1_024;

const MAGIC: [u8; 4] = *b"GYRE";
const HEAD_BYTES: usize = 7;
const HELLO: u8 = 1;
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const WELCOME: u8 = 4;
const REFUSED: u8 = 5;
const PROOF_LABEL: &[u8] = b"gyre peer handshake, proof 1";

/// Random bytes, never used twice.
pub type Nonce = [u8; 32];

/// The cluster secret. Its bytes never show in logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(…)" })
    }
}

/// What a node says of itself to every peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the cluster it was configured for, at most [`CLUSTER_NAME_BYTES_MAX`].
    pub cluster_name: String,
    /// The cluster it belongs to; 0 while it is fresh.
    pub cluster_id: u128,
    /// Its id.
    pub node: NodeId,
    /// Its incarnation.
    pub incarnation: u64,
    /// Random, drawn when the process started: tells a node that dials itself from two nodes of one id.
    pub instance: u128,
    /// The oldest and newest protocol versions it speaks.
    pub versions: (u16, u16),
}

/// The other end of a link, proven to know the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it says of itself.
    pub identity: Identity,
    /// Which of its workers holds the link.
    pub worker: u16,
    /// The protocol version to speak.
    pub version: u16,
}

/// Why a link does not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The secrets differ, or only one side has one.
    #[error("the peer does not know our cluster secret (or we not its)")]
    WrongSecret,
    /// The peer was configured for a cluster of another name.
    #[error("the peer belongs to the cluster named {theirs:?}, this node to {ours:?}")]
    OtherClusterName {
        /// This node's cluster name.
        ours: String,
        /// The peer's.
        theirs: String,
    },
    /// The peer belongs to another cluster that happens to have the same name.
    #[error("the peer belongs to cluster {theirs:032x}, this node to {ours:032x}")]
    OtherClusterId {
        /// This node's cluster.
        ours: u128,
        /// The peer's.
        theirs: u128,
    },
    /// No protocol version is spoken by both.
    #[error("the peer speaks protocol versions {}–{}, this node {}–{}", theirs.0, theirs.1, ours.0, ours.1)]
    UnsupportedVersion {
        /// This node's oldest and newest version.
        ours: (u16, u16),
        /// The peer's.
        theirs: (u16, u16),
    },
    /// The node has dialled itself, as it does when the seeds name it.
    #[error("the peer is this node itself")]
    SelfConnection,
    /// Another process runs under this node's id.
    #[error("another process runs under this node's id {id}")]
    DuplicateNodeId {
        /// The id.
        id: NodeId,
    },
    /// The bytes are no handshake, or out of turn.
    #[error("the other end does not speak Gyre's peer protocol")]
    Malformed,
}

impl From<Malformed> for HandshakeError {
    fn from(_: Malformed) -> HandshakeError {
        HandshakeError::Malformed
    }
}

/// What [`Handshake::receive`] made of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// The peer, once both proofs are made. The bytes after `consumed` are then frames.
    pub peer: Option<Peer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitsHello,
    AwaitsChallenge,
    AwaitsProof,
    AwaitsWelcome,
    Over,
}

/// One side of one handshake. Feed it what arrives; send what it appends to `out`, also when it fails.
#[derive(Debug)]
pub struct Handshake {
    own: Introduction,
    secret: Secret,
    state: State,
    /// The payloads of HELLO and CHALLENGE, which the proofs cover.
    hello: Vec<u8>,
    challenge: Vec<u8>,
    peer: Option<Peer>,
}

impl Handshake {
    /// Begins the handshake of a connection this node has opened. `nonce` is fresh random bytes.
    #[must_use]
    pub fn dial(own: &Identity, worker: u16, secret: &Secret, nonce: Nonce, out: &mut Vec<u8>) -> Handshake {
        let mut handshake = Handshake::new(own, worker, secret, nonce, State::AwaitsChallenge);
        handshake.own.encode(&mut handshake.hello);
        put_message(HELLO, &handshake.hello, out);
        handshake
    }

    /// Begins the handshake of a connection this node has accepted. `nonce` is fresh random bytes.
    #[must_use]
    pub fn accept(own: &Identity, worker: u16, secret: &Secret, nonce: Nonce) -> Handshake {
        Handshake::new(own, worker, secret, nonce, State::AwaitsHello)
    }

    fn new(own: &Identity, worker: u16, secret: &Secret, nonce: Nonce, state: State) -> Handshake {
        let own = Introduction { identity: own.clone(), worker, nonce };
        Handshake { own, secret: secret.clone(), state, hello: Vec::new(), challenge: Vec::new(), peer: None }
    }

    /// Takes what has arrived, beginning where the last call's `consumed` ended, and appends answers to `out`.
    ///
    /// # Errors
    /// [`HandshakeError`]: send what is in `out` and close. Every later call fails too.
    pub fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Progress, HandshakeError> {
        let mut consumed = 0;
        while let Some((kind, payload)) = read_message(input.get(consumed..).unwrap_or_default())? {
            consumed += HEAD_BYTES + payload.len();
            match self.message(kind, payload, out) {
                Ok(false) => {}
                Ok(true) => return Ok(Progress { consumed, peer: self.peer.take() }),
                Err(error) => {
                    self.state = State::Over;
                    return Err(error);
                }
            }
        }
        Ok(Progress { consumed, peer: None })
    }

    /// Answers whether the handshake is complete.
    fn message(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        match (self.state, kind) {
            (State::AwaitsHello, HELLO) => self.hello(payload, out),
            (State::AwaitsChallenge, CHALLENGE) => self.challenge(payload, out),
            (State::AwaitsProof, PROOF) => {
                if let Err(wrong) = self.verify(Role::Dialler, payload) {
                    put_message(REFUSED, &[], out);
                    return Err(wrong);
                }
                put_message(WELCOME, &self.proof(Role::Acceptor).finalize().into_bytes(), out);
                self.state = State::Over;
                Ok(true)
            }
            (State::AwaitsWelcome, WELCOME) => {
                self.verify(Role::Acceptor, payload)?;
                self.state = State::Over;
                Ok(true)
            }
            (State::AwaitsWelcome, REFUSED) => Err(HandshakeError::WrongSecret),
            _ => Err(HandshakeError::Malformed),
        }
    }

    /// The acceptor introduces itself whether or not it likes the dialler, who so finds out the reason by itself.
    fn hello(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        let mut reader = Reader::new(payload);
        let theirs = Introduction::decode(&mut reader)?;
        reader.end()?;
        let version = common_version(self.own.identity.versions, theirs.identity.versions);
        self.hello = payload.to_vec();
        self.challenge.extend_from_slice(&version.unwrap_or(0).to_le_bytes());
        self.own.encode(&mut self.challenge);
        put_message(CHALLENGE, &self.challenge, out);
        self.meet(theirs, version)?;
        self.state = State::AwaitsProof;
        Ok(false)
    }

    fn challenge(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        let mut reader = Reader::new(payload);
        let chosen = reader.u16()?;
        let theirs = Introduction::decode(&mut reader)?;
        reader.end()?;
        let version = common_version(self.own.identity.versions, theirs.identity.versions);
        self.meet(theirs, version)?;
        if version != Some(chosen) {
            return Err(HandshakeError::Malformed);
        }
        self.challenge = payload.to_vec();
        put_message(PROOF, &self.proof(Role::Dialler).finalize().into_bytes(), out);
        self.state = State::AwaitsWelcome;
        Ok(false)
    }

    /// Checks whether the other side may be a peer of this node at all.
    fn meet(&mut self, theirs: Introduction, version: Option<u16>) -> Result<(), HandshakeError> {
        let (ours, worker) = (&self.own.identity, theirs.worker);
        let theirs = theirs.identity;
        if theirs.instance == ours.instance {
            return Err(HandshakeError::SelfConnection);
        }
        let Some(version) = version else {
            return Err(HandshakeError::UnsupportedVersion { ours: ours.versions, theirs: theirs.versions });
        };
        if theirs.cluster_name != ours.cluster_name {
            let ours = ours.cluster_name.clone();
            return Err(HandshakeError::OtherClusterName { ours, theirs: theirs.cluster_name });
        }
        if theirs.node == ours.node {
            return Err(HandshakeError::DuplicateNodeId { id: ours.node });
        }
        let is_one_fresh = theirs.cluster_id == 0 || ours.cluster_id == 0;
        if !is_one_fresh && theirs.cluster_id != ours.cluster_id {
            let (ours, theirs) = (ours.cluster_id, theirs.cluster_id);
            return Err(HandshakeError::OtherClusterId { ours, theirs });
        }
        self.peer = Some(Peer { identity: theirs, worker, version });
        Ok(())
    }

    fn proof(&self, role: Role) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret.0).expect("HMAC takes keys of any length");
        mac.update(PROOF_LABEL);
        mac.update(&[role as u8]);
        for part in [&self.hello, &self.challenge] {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }

    fn verify(&self, role: Role, proof: &[u8]) -> Result<(), HandshakeError> {
        self.proof(role).verify_slice(proof).map_err(|_| HandshakeError::WrongSecret)
    }
}

/// Who makes a proof.
#[derive(Clone, Copy)]
enum Role {
    Dialler = 1,
    Acceptor = 2,
}

/// The newest version in both ranges.
fn common_version(ours: (u16, u16), theirs: (u16, u16)) -> Option<u16> {
    let newest = ours.1.min(theirs.1);
    (newest >= ours.0 && newest >= theirs.0).then_some(newest)
}

/// What each side says first.
#[derive(Debug)]
struct Introduction {
    identity: Identity,
    worker: u16,
    nonce: Nonce,
}

impl Introduction {
    fn encode(&self, out: &mut Vec<u8>) {
        let Identity { cluster_name, cluster_id, node, incarnation, instance, versions } = &self.identity;
        out.extend_from_slice(&versions.0.to_le_bytes());
        out.extend_from_slice(&versions.1.to_le_bytes());
        put_text(out, cluster_name);
        out.extend_from_slice(&cluster_id.to_le_bytes());
        out.extend_from_slice(&node.0.to_le_bytes());
        out.extend_from_slice(&incarnation.to_le_bytes());
        out.extend_from_slice(&instance.to_le_bytes());
        out.extend_from_slice(&self.worker.to_le_bytes());
        out.extend_from_slice(&self.nonce);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Introduction, Malformed> {
        let identity = Identity {
            versions: (reader.u16()?, reader.u16()?),
            cluster_name: reader.text(CLUSTER_NAME_BYTES_MAX)?,
            cluster_id: reader.u128()?,
            node: NodeId::new(reader.u64()?).ok_or(Malformed)?,
            incarnation: reader.u64()?,
            instance: reader.u128()?,
        };
        Ok(Introduction { identity, worker: reader.u16()?, nonce: reader.array()? })
    }
}

fn put_message(kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(HEAD_BYTES + payload.len() <= HANDSHAKE_BYTES_MAX, "every message fits the bound");
    out.extend_from_slice(&MAGIC);
    out.push(kind);
    // At most HANDSHAKE_BYTES_MAX.
    out.extend_from_slice(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(payload);
}

/// The message at the start of `input`, or `None` while it is unfinished. Foreign bytes are refused from the first
/// one on, before they can pretend to be a long message.
fn read_message(input: &[u8]) -> Result<Option<(u8, &[u8])>, HandshakeError> {
    if !input.iter().zip(&MAGIC).all(|(found, expected)| found == expected) {
        return Err(HandshakeError::Malformed);
    }
    let Some((head, rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [_, _, _, _, kind, l0, l1] = *head;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    if HEAD_BYTES + length > HANDSHAKE_BYTES_MAX {
        return Err(HandshakeError::Malformed);
    }
    Ok(rest.get(..length).map(|payload| (kind, payload)))
}

#[cfg(test)]
mod tests;
