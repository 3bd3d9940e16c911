//! Claims about frames: what is written is read, in any cuts; hostile bytes are refused within bounds.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SMALL: FrameLimits =
    FrameLimits { message_bytes_max: 2_000_000, streams_max: 3, link_bytes_max: 4_000_000 };

type Message = (u8, Hlc, Vec<u8>);

/// Reads everything in `bytes`, handed over in pieces of the given sizes, as a link would.
fn read_all(limits: FrameLimits, bytes: &[u8], cuts: &[usize]) -> Result<Vec<Message>, FrameError> {
    let mut reassembler = Reassembler::new(limits);
    let (mut buffer, mut messages, mut at) = (Vec::new(), Vec::new(), 0);
    for cut in cuts.iter().copied().cycle() {
        let end = (at + cut.max(1)).min(bytes.len());
        buffer.extend_from_slice(&bytes[at..end]);
        at = end;
        loop {
            let step = reassembler.next(&buffer)?;
            let message = step.message.map(|m| (m.kind, m.hlc, m.payload.into_owned()));
            let consumed = step.consumed;
            assert!(consumed <= buffer.len() && step.needed <= FRAME_HEAD_BYTES + FRAME_BYTES_MAX);
            buffer.drain(..consumed);
            match message {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        if at == bytes.len() {
            break;
        }
    }
    Ok(messages)
}

fn pattern(length: usize) -> Vec<u8> {
    (0u8..251).cycle().take(length).collect()
}

#[test]
fn a_small_message_is_one_frame_read_in_place() {
    let (mut writer, mut outbox) = (FrameWriter::default(), Vec::new());
    writer.message(7, Hlc(99), &[b"head", b"", b"tail"], &mut outbox).unwrap();
    assert_eq!(outbox.len(), FRAME_HEAD_BYTES + 8);
    assert_eq!(&outbox[..6], [8, 0, 0, 0, 7, 0]);
    let step = Reassembler::default().next(&outbox).unwrap();
    let message = step.message.unwrap();
    assert!(matches!(message.payload, Cow::Borrowed(b"headtail")));
    assert_eq!((message.kind, message.hlc, step.consumed), (7, Hlc(99), outbox.len()));
}

#[test]
fn an_unfinished_frame_says_what_it_needs() {
    let (mut writer, mut outbox) = (FrameWriter::default(), Vec::new());
    writer.message(1, Hlc(1), &[b"abcdef"], &mut outbox).unwrap();
    let mut reassembler = Reassembler::default();
    for cut in 0..outbox.len() {
        let step = reassembler.next(&outbox[..cut]).unwrap();
        let needed = if cut < FRAME_HEAD_BYTES { FRAME_HEAD_BYTES } else { outbox.len() };
        assert_eq!(step, Step { consumed: 0, message: None, needed });
    }
}

#[test]
fn a_message_longer_than_the_limit_is_not_written() {
    let (mut writer, mut outbox) = (FrameWriter::new(SMALL), Vec::new());
    let long = pattern(SMALL.message_bytes_max + 1);
    let refused = FrameError::MessageTooLong { bytes: 2_000_001, allowed: 2_000_000 };
    assert_eq!(writer.message(1, Hlc(0), &[&long], &mut outbox), Err(refused));
    assert_eq!(writer.begin(1, long).unwrap_err(), refused);
    assert!(outbox.is_empty());
}

#[test]
fn long_messages_interleave_with_each_other_and_with_short_ones() {
    let (mut writer, mut outbox) = (FrameWriter::new(SMALL), Vec::new());
    let (first, second) = (pattern(700_000), pattern(900_000));
    let mut a = writer.begin(1, &first[..]).unwrap().unwrap();
    let mut b = writer.begin(2, second.clone()).unwrap().unwrap();
    assert!(writer.begin(3, pattern(1)).unwrap().is_none(), "one stream is kept free");
    let (mut a_done, mut b_done) = (false, false);
    while !(a_done && b_done) {
        a_done = a_done || writer.write_chunk(&mut a, Hlc(5), &mut outbox);
        writer.message(9, Hlc(6), &[b"between"], &mut outbox).unwrap();
        writer.message(8, Hlc(6), &[&first[..300_000]], &mut outbox).unwrap();
        b_done = b_done || writer.write_chunk(&mut b, Hlc(7), &mut outbox);
    }
    assert_eq!(b.remaining(), 0);
    assert!(writer.begin(3, pattern(1)).unwrap().is_some());
    let messages = read_all(SMALL, &outbox, &[100_000]).unwrap();
    let of = |kind: u8| messages.iter().filter(|m| m.0 == kind).collect::<Vec<_>>();
    assert_eq!(of(1), [&(1, Hlc(5), first.clone())]);
    assert_eq!(of(2), [&(2, Hlc(7), second)]);
    assert_eq!(of(9).len(), 4);
    assert!(of(8).len() == 4 && of(8).iter().all(|m| m.2 == first[..300_000]));
}

#[test]
fn a_peer_cannot_open_more_than_the_link_allows() {
    let chunk = |stream: u32, total: usize| {
        let mut bytes = Vec::new();
        chunk_head(1, Hlc(0), stream, 0, total, &mut bytes);
        bytes.resize(FRAME_HEAD_BYTES + FRAME_BYTES_MAX, 0);
        bytes
    };
    let mut reassembler = Reassembler::new(SMALL);
    for stream in 0..3 {
        assert!(reassembler.next(&chunk(stream, 300_000)).unwrap().message.is_none());
    }
    assert_eq!(reassembler.next(&chunk(3, 300_000)), Err(FrameError::TooMuchOpen));
    let mut reassembler = Reassembler::new(SMALL);
    reassembler.next(&chunk(0, 2_000_000)).unwrap();
    reassembler.next(&chunk(1, 1_900_000)).unwrap();
    assert_eq!(reassembler.next(&chunk(2, 300_000)), Err(FrameError::TooMuchOpen));
    assert!(reassembler.buffered_bytes() <= 2 * FRAME_BYTES_MAX, "memory follows what arrived");
    assert!(Reassembler::new(SMALL).next(&chunk(0, 2_000_001)).is_err());
}

#[test]
fn broken_chunks_are_refused() {
    let (mut writer, mut outbox) = (FrameWriter::default(), Vec::new());
    writer.message(1, Hlc(0), &[&pattern(600_000)], &mut outbox).unwrap();
    let frame = FRAME_HEAD_BYTES + FRAME_BYTES_MAX;
    let refuse = |bytes: &[u8]| assert!(read_all(SMALL, bytes, &[bytes.len()]).is_err());
    refuse(&outbox[frame..]);
    refuse(&[&outbox[..frame], &outbox[..frame]].concat());
    let mut other_kind = outbox.clone();
    other_kind[frame + 4] = 2;
    refuse(&other_kind);
    let mut ends_early = outbox.clone();
    ends_early[frame + 5] |= LAST;
    refuse(&ends_early);
    let mut unknown_flag = outbox.clone();
    unknown_flag[5] |= 8;
    refuse(&unknown_flag);
    refuse(&[0xff; FRAME_HEAD_BYTES]);
    refuse(&[2, 0, 0, 0, 1, CHUNK, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
}

fn message() -> impl Strategy<Value = (u8, u64, Vec<usize>)> {
    let part = prop_oneof![4 => 0usize..200, 1 => 200_000usize..400_000];
    (any::<u8>(), any::<u64>(), vec(part, 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_in_any_cuts(
        messages in vec(message(), 1..6),
        cuts in vec(1usize..300_000, 1..6),
    ) {
        let (mut writer, mut outbox, mut expected) = (FrameWriter::new(SMALL), Vec::new(), Vec::new());
        for (kind, hlc, lengths) in messages {
            let parts: Vec<Vec<u8>> = lengths.into_iter().map(pattern).collect();
            let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            writer.message(kind, Hlc(hlc), &slices, &mut outbox).unwrap();
            expected.push((kind, Hlc(hlc), parts.concat()));
        }
        prop_assert_eq!(read_all(SMALL, &outbox, &cuts), Ok(expected));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn hostile_bytes_never_panic_and_never_hold_more_than_they_brought(
        frames in vec((0u32..40, 0u8..3, 0u8..9, vec(0u8..3, 0..40)), 0..20),
        noise in vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = Vec::new();
        for (length, kind, flags, payload) in frames {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&[kind, flags, 0, 0, 0, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(&payload);
        }
        bytes.extend_from_slice(&noise);
        let (mut reassembler, mut at) = (Reassembler::new(SMALL), 0);
        while let Ok(step) = reassembler.next(&bytes[at..]) {
            at += step.consumed;
            prop_assert!(reassembler.buffered_bytes() <= at);
            if step.message.is_none() {
                break;
            }
        }
    }
}
