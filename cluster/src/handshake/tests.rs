//! Claims about the handshake: peers of one cluster meet, everyone else is refused for a stated reason.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn identity(node: u64) -> Identity {
    Identity {
        cluster_name: "test".into(),
        cluster_id: 0,
        node: NodeId(node),
        incarnation: node * 10,
        instance: u128::from(node) << 64 | 5,
        versions: (1, 3),
    }
}

fn secret(text: &str) -> Secret {
    Secret(text.as_bytes().to_vec())
}

type Outcome = Result<Peer, HandshakeError>;

/// Runs both sides against each other, `piece` bytes at a time: what the dialler and the acceptor conclude.
fn run(dialler: (&Identity, &Secret), acceptor: (&Identity, &Secret), piece: usize) -> (Outcome, Outcome) {
    let mut to_acceptor = Vec::new();
    let mut to_dialler = Vec::new();
    let mut d = Handshake::dial(dialler.0, 1, dialler.1, [1; 32], &mut to_acceptor);
    let mut a = Handshake::accept(acceptor.0, 2, acceptor.1, [2; 32]);
    let (mut d_end, mut a_end) = (None, None);
    let (mut d_inbox, mut a_inbox) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        let step = |side: &mut Handshake, wire: &mut Vec<u8>, inbox: &mut Vec<u8>, out: &mut Vec<u8>| {
            inbox.extend(wire.drain(..piece.min(wire.len())));
            match side.receive(inbox, out) {
                Ok(progress) => {
                    inbox.drain(..progress.consumed);
                    progress.peer.map(Ok)
                }
                Err(error) => Some(Err(error)),
            }
        };
        if a_end.is_none() {
            a_end = step(&mut a, &mut to_acceptor, &mut a_inbox, &mut to_dialler);
        }
        if d_end.is_none() {
            d_end = step(&mut d, &mut to_dialler, &mut d_inbox, &mut to_acceptor);
        }
    }
    // A side that hears nothing more sees the connection close.
    (d_end.unwrap_or(Err(HandshakeError::Malformed)), a_end.unwrap_or(Err(HandshakeError::Malformed)))
}

#[test]
fn peers_of_one_cluster_meet_and_know_each_other() {
    let (one, two) = (identity(1), Identity { versions: (2, 9), cluster_id: 4, ..identity(2) });
    for text in ["", "a secret"] {
        for piece in [1, 7, 1_000] {
            let (d, a) = run((&one, &secret(text)), (&two, &secret(text)), piece);
            assert_eq!(d, Ok(Peer { identity: two.clone(), worker: 2, version: 3 }));
            assert_eq!(a, Ok(Peer { identity: one.clone(), worker: 1, version: 3 }));
        }
    }
}

#[test]
fn a_wrong_or_missing_secret_is_refused_on_both_sides() {
    for (ours, theirs) in [("a", "b"), ("a", ""), ("", "b")] {
        let (d, a) = run((&identity(1), &secret(ours)), (&identity(2), &secret(theirs)), 100);
        assert_eq!((d, a), (Err(HandshakeError::WrongSecret), Err(HandshakeError::WrongSecret)));
    }
}

#[test]
fn both_sides_learn_why_they_cannot_be_peers() {
    let refuse = |other: Identity, ours: Identity, error: HandshakeError, mirrored: HandshakeError| {
        let (d, a) = run((&ours, &secret("s")), (&other, &secret("s")), 100);
        assert_eq!((d, a), (Err(error), Err(mirrored)));
    };
    let name = |ours: &str, theirs: &str| HandshakeError::OtherClusterName {
        ours: ours.into(),
        theirs: theirs.into(),
    };
    refuse(
        Identity { cluster_name: "prod".into(), ..identity(2) },
        identity(1),
        name("test", "prod"),
        name("prod", "test"),
    );
    let in_cluster = |cluster_id, node| Identity { cluster_id, ..identity(node) };
    refuse(
        in_cluster(8, 2),
        in_cluster(7, 1),
        HandshakeError::OtherClusterId { ours: 7, theirs: 8 },
        HandshakeError::OtherClusterId { ours: 8, theirs: 7 },
    );
    refuse(
        Identity { versions: (4, 6), ..identity(2) },
        identity(1),
        HandshakeError::UnsupportedVersion { ours: (1, 3), theirs: (4, 6) },
        HandshakeError::UnsupportedVersion { ours: (4, 6), theirs: (1, 3) },
    );
    let duplicate = HandshakeError::DuplicateNodeId { id: NodeId(1) };
    let twin = Identity { instance: 99, ..identity(1) };
    refuse(twin, identity(1), duplicate.clone(), duplicate);
    refuse(identity(1), identity(1), HandshakeError::SelfConnection, HandshakeError::SelfConnection);
}

#[test]
fn a_proof_cannot_be_reflected() {
    // An attacker who does not know the secret dials back and answers with the victim's own proof.
    let (victim, key) = (identity(1), secret("s"));
    let (mut hello, mut proof, mut out) = (Vec::new(), Vec::new(), Vec::new());
    let mut dialled = Handshake::dial(&victim, 0, &key, [3; 32], &mut hello);
    let mut challenge = vec![1, 0];
    Introduction { identity: Identity { versions: (1, 1), ..identity(2) }, worker: 0, nonce: [4; 32] }
        .encode(&mut challenge);
    let mut message = Vec::new();
    put_message(CHALLENGE, &challenge, &mut message);
    dialled.receive(&message, &mut proof).unwrap();
    let mut welcome = Vec::new();
    put_message(WELCOME, &proof[HEAD_BYTES..], &mut welcome);
    assert_eq!(dialled.receive(&welcome, &mut out), Err(HandshakeError::WrongSecret));
    assert_eq!(dialled.receive(&welcome, &mut out), Err(HandshakeError::Malformed), "it stays over");
}

#[test]
fn altering_anything_that_was_said_breaks_the_proof() {
    let (one, two, key) = (identity(1), identity(2), secret("s"));
    let mut hello = Vec::new();
    let _ = Handshake::dial(&one, 1, &key, [1; 32], &mut hello);
    for at in HEAD_BYTES..hello.len() {
        let (mut first, mut challenge) = (Vec::new(), Vec::new());
        let mut d = Handshake::dial(&one, 1, &key, [1; 32], &mut first);
        let mut a = Handshake::accept(&two, 2, &key, [2; 32]);
        first[at] ^= 1;
        let mut out = Vec::new();
        let (mut proof, mut answer) = (Vec::new(), Vec::new());
        let met = a
            .receive(&first, &mut challenge)
            .and_then(|_| d.receive(&challenge, &mut proof))
            .and_then(|_| a.receive(&proof, &mut answer))
            .and_then(|_| d.receive(&answer, &mut out));
        assert!(met.is_err(), "byte {at}");
    }
}

#[test]
fn foreign_traffic_is_refused_at_its_first_byte() {
    for bytes in [&b"*"[..], b"GET / HTTP/1.1", b"\x16\x03\x01", b"GYRE\x01\xff\xff", b"GYRE\x09\0\0"] {
        let mut a = Handshake::accept(&identity(1), 0, &Secret::default(), [0; 32]);
        assert_eq!(a.receive(bytes, &mut Vec::new()), Err(HandshakeError::Malformed));
    }
}

#[test]
fn the_longest_message_fits_the_bound() {
    let long = Identity { cluster_name: "x".repeat(CLUSTER_NAME_BYTES_MAX), ..identity(1) };
    let mut out = Vec::new();
    let _ = Handshake::dial(&long, 0, &Secret::default(), [0; 32], &mut out);
    assert!(out.len() + 2 <= HANDSHAKE_BYTES_MAX);
}

#[test]
fn a_secret_never_shows() {
    assert!(!format!("{:?}", secret("hunter2")).contains("hunter"));
}

proptest! {
    #[test]
    fn noise_never_makes_a_peer(kind in 0u8..7, payload in vec(any::<u8>(), 0..300), dials: bool) {
        let mut out = Vec::new();
        let mut side = if dials {
            Handshake::dial(&identity(1), 0, &secret("s"), [0; 32], &mut out)
        } else {
            Handshake::accept(&identity(1), 0, &secret("s"), [0; 32])
        };
        let mut bytes = Vec::new();
        put_message(kind, &payload, &mut bytes);
        for _ in 0..3 {
            if let Ok(progress) = side.receive(&bytes, &mut out) {
                prop_assert!(progress.peer.is_none());
            }
        }
    }
}
