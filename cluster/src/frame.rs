//! Frames: how messages travel on a peer link.
//!
//! ```text
//! length of what follows the head: u32 | kind: u8 | flags: u8 | sender's hybrid clock: u64 | payload
//! ```
//! All integers are little-endian. A message of up to [`FRAME_BYTES_MAX`] is one frame and is read in place. A larger
//! one is cut into chunks, each a frame with the flag `CHUNK` whose payload begins with
//!
//! ```text
//! stream: u32 | [total message bytes: u64, in the first chunk only]
//! ```
//! Chunks of several messages and whole frames may interleave, so that a 512 MB value does not hold up the link. The
//! receiver bounds how many messages are open at once and how many bytes they may announce together; the sender keeps
//! to the same bounds ([`FrameWriter::begin`]), so that only a broken or hostile peer meets them.
//!
//! What the kinds mean is the business of the messages themselves; here they are only carried.

use std::borrow::Cow;

use gyre_storage::Hlc;

/// The bytes before a frame's payload.
pub const FRAME_HEAD_BYTES: usize = 14;
/// The most payload bytes of one frame; longer messages are cut into chunks.
pub const FRAME_BYTES_MAX: usize = 256 * 1024;
/// The most bytes of one message: a value of 512 MB, its key, and what the message adds.
pub const MESSAGE_BYTES_MAX: usize = (512 + 1 + 1) * 1024 * 1024;
/// The most chunked messages open at once on one link, in one direction.
pub const CHUNK_STREAMS_MAX: usize = 4;
/// The most bytes that the chunked messages open on one link may have together, in one direction.
pub const LINK_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

const CHUNK: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;
/// `stream` and `total` at the head of a first chunk.
const CHUNK_HEAD_BYTES: usize = 12;

/// The bounds of one direction of a link. Both ends must use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The most bytes of one message.
    pub message_bytes_max: usize,
    /// The most chunked messages open at once.
    pub streams_max: usize,
    /// The most bytes they may have together; at least twice `message_bytes_max`.
    pub link_bytes_max: usize,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits {
            message_bytes_max: MESSAGE_BYTES_MAX,
            streams_max: CHUNK_STREAMS_MAX,
            link_bytes_max: LINK_BYTES_MAX,
        }
    }
}

/// Why bytes are not a stream of frames. The link is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame longer than any sender makes.
    #[error("a frame of {bytes} bytes is longer than {FRAME_BYTES_MAX}")]
    FrameTooLong {
        /// The payload's announced length.
        bytes: usize,
    },
    /// A message longer than the link allows.
    #[error("a message of {bytes} bytes is longer than {allowed}")]
    MessageTooLong {
        /// The message's length.
        bytes: u64,
        /// The most that is allowed.
        allowed: usize,
    },
    /// More chunked messages, or bytes in them, than the link allows.
    #[error("the peer has too many or too large messages open at once")]
    TooMuchOpen,
    /// Flags or chunks that no sender makes.
    #[error("malformed frame: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes frames into an outbox, and keeps count of the chunked messages that are open.
#[derive(Debug, Default)]
pub struct FrameWriter {
    limits: FrameLimits,
    next_stream: u32,
    open: usize,
    open_bytes: usize,
}

/// A long message on its way, to be written chunk by chunk with [`FrameWriter::write_chunk`].
#[derive(Debug)]
pub struct LongMessage<B> {
    kind: u8,
    stream: u32,
    body: B,
    sent: usize,
}

impl<B: AsRef<[u8]>> LongMessage<B> {
    /// How many bytes of the message are still to be written.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.body.as_ref().len() - self.sent
    }
}

impl FrameWriter {
    /// A writer for a link of `limits`.
    #[must_use]
    pub fn new(limits: FrameLimits) -> FrameWriter {
        FrameWriter { limits, ..FrameWriter::default() }
    }

    /// Appends a message whose payload is `parts` one after the other: one frame, or all its chunks in a row.
    ///
    /// The parts are copied straight into `outbox`; no second copy of a large value is made.
    ///
    /// # Errors
    /// [`FrameError::MessageTooLong`]; nothing is appended then.
    pub fn message(
        &mut self,
        kind: u8,
        hlc: Hlc,
        parts: &[&[u8]],
        outbox: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        self.check(total)?;
        if total <= FRAME_BYTES_MAX {
            outbox.reserve(FRAME_HEAD_BYTES + total);
            head(total, kind, 0, hlc, outbox);
            parts.iter().for_each(|part| outbox.extend_from_slice(part));
            return Ok(());
        }
        let stream = self.take_stream();
        let mut rest = Rest { parts, offset: 0 };
        let mut sent = 0;
        while sent < total {
            let room = chunk_head(kind, hlc, stream, sent, total, outbox);
            rest.copy(room, outbox);
            sent += room;
        }
        Ok(())
    }

    /// Whether a message of `total` bytes needs chunks.
    #[must_use]
    pub const fn is_long(total: usize) -> bool {
        total > FRAME_BYTES_MAX
    }

    /// Opens a chunked message of payload `body`, to be written piece by piece between other frames. `None` if that
    /// would exceed what the link may have open: try again when another long message has been written.
    ///
    /// # Errors
    /// [`FrameError::MessageTooLong`] if the link never takes it.
    pub fn begin<B: AsRef<[u8]>>(&mut self, kind: u8, body: B) -> Result<Option<LongMessage<B>>, FrameError> {
        let total = body.as_ref().len();
        self.check(total)?;
        // One stream and one message's bytes stay free for `message`, which opens and closes within one call.
        let bytes_max = self.limits.link_bytes_max.saturating_sub(self.limits.message_bytes_max);
        let is_full = self.open + 1 >= self.limits.streams_max || self.open_bytes + total > bytes_max;
        if is_full {
            return Ok(None);
        }
        self.open += 1;
        self.open_bytes += total;
        Ok(Some(LongMessage { kind, stream: self.take_stream(), body, sent: 0 }))
    }

    /// Appends the next chunk of `message`. Answers whether it was the last.
    pub fn write_chunk<B: AsRef<[u8]>>(
        &mut self,
        message: &mut LongMessage<B>,
        hlc: Hlc,
        outbox: &mut Vec<u8>,
    ) -> bool {
        let body = message.body.as_ref();
        let room = chunk_head(message.kind, hlc, message.stream, message.sent, body.len(), outbox);
        let end = message.sent + room;
        outbox.extend_from_slice(body.get(message.sent..end).unwrap_or_default());
        message.sent = end;
        let is_last = end == body.len();
        if is_last {
            self.open = self.open.saturating_sub(1);
            self.open_bytes = self.open_bytes.saturating_sub(body.len());
        }
        is_last
    }

    fn check(&self, total: usize) -> Result<(), FrameError> {
        let allowed = self.limits.message_bytes_max;
        if total > allowed {
            return Err(FrameError::MessageTooLong { bytes: total as u64, allowed });
        }
        Ok(())
    }

    fn take_stream(&mut self) -> u32 {
        self.next_stream = self.next_stream.wrapping_add(1);
        self.next_stream
    }
}

/// Appends a frame's head.
fn head(payload: usize, kind: u8, flags: u8, hlc: Hlc, outbox: &mut Vec<u8>) {
    // A payload is at most FRAME_BYTES_MAX.
    let length = u32::try_from(payload).unwrap_or(u32::MAX);
    outbox.extend_from_slice(&length.to_le_bytes());
    outbox.extend_from_slice(&[kind, flags]);
    outbox.extend_from_slice(&hlc.0.to_le_bytes());
}

/// Appends the head of the chunk that begins at byte `sent` of a message of `total` bytes. Answers how many bytes of
/// the message the chunk takes.
fn chunk_head(kind: u8, hlc: Hlc, stream: u32, sent: usize, total: usize, outbox: &mut Vec<u8>) -> usize {
    let room = (total - sent).min(FRAME_BYTES_MAX - CHUNK_HEAD_BYTES);
    let first = if sent == 0 { FIRST } else { 0 };
    let last = if sent + room == total { LAST } else { 0 };
    let own = if sent == 0 { CHUNK_HEAD_BYTES } else { 4 };
    outbox.reserve(FRAME_HEAD_BYTES + own + room);
    head(own + room, kind, CHUNK | first | last, hlc, outbox);
    outbox.extend_from_slice(&stream.to_le_bytes());
    if sent == 0 {
        outbox.extend_from_slice(&(total as u64).to_le_bytes());
    }
    room
}

/// What is left of the parts of a message.
struct Rest<'a> {
    parts: &'a [&'a [u8]],
    /// How much of the first part is gone.
    offset: usize,
}

impl Rest<'_> {
    /// Moves the next `wanted` bytes to `outbox`.
    fn copy(&mut self, mut wanted: usize, outbox: &mut Vec<u8>) {
        while let Some((part, later)) = self.parts.split_first() {
            let left = part.get(self.offset..).unwrap_or_default();
            let taken = left.get(..wanted).unwrap_or(left);
            outbox.extend_from_slice(taken);
            wanted -= taken.len();
            self.offset += taken.len();
            if self.offset < part.len() {
                return;
            }
            (self.parts, self.offset) = (later, 0);
        }
    }
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The message's kind.
    pub kind: u8,
    /// The sender's clock when it wrote the (last) frame.
    pub hlc: Hlc,
    /// The payload: a slice of the read buffer, or the chunks of a long message put together.
    pub payload: Cow<'a, [u8]>,
}

/// What [`Reassembler::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// How many bytes of the input are done with, whether or not they made a message.
    pub consumed: usize,
    /// The message, or `None` if the bytes after `consumed` are an unfinished frame.
    pub message: Option<Incoming<'a>>,
    /// Without a message: how many bytes the unfinished frame needs after `consumed`, as far as is known.
    /// At most [`FRAME_HEAD_BYTES`] + [`FRAME_BYTES_MAX`]. With a message: 0.
    pub needed: usize,
}

/// Reads frames out of a read buffer: whole ones in place, chunked ones into a buffer of their own.
#[derive(Debug, Default)]
pub struct Reassembler {
    limits: FrameLimits,
    open: Vec<OpenMessage>,
}

#[derive(Debug)]
struct OpenMessage {
    stream: u32,
    kind: u8,
    total: usize,
    bytes: Vec<u8>,
}

impl Reassembler {
    /// A reassembler for a link of `limits`.
    #[must_use]
    pub fn new(limits: FrameLimits) -> Reassembler {
        Reassembler { limits, open: Vec::new() }
    }

    /// Finds the next message in `input`, which begins where the last step's `consumed` ended.
    ///
    /// # Errors
    /// [`FrameError`] on bytes that no sender makes; the link is then of no more use.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, FrameError> {
        let mut consumed = 0;
        loop {
            let rest = input.get(consumed..).unwrap_or_default();
            let frame = match Frame::read(rest)? {
                Ok(frame) => frame,
                Err(needed) => return Ok(Step { consumed, message: None, needed }),
            };
            consumed += FRAME_HEAD_BYTES + frame.payload.len();
            if let Some(message) = self.take(&frame)? {
                return Ok(Step { consumed, message: Some(message), needed: 0 });
            }
        }
    }

    /// How many bytes of unfinished messages are held.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.open.iter().map(|open| open.bytes.len()).sum()
    }

    fn take<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Incoming<'a>>, FrameError> {
        match frame.flags {
            0 => {
                let payload = Cow::Borrowed(frame.payload);
                Ok(Some(Incoming { kind: frame.kind, hlc: frame.hlc, payload }))
            }
            flags if flags & CHUNK != 0 && flags & !(CHUNK | FIRST | LAST) == 0 => self.chunk(frame),
            _ => Err(FrameError::Malformed { what: "unknown flags" }),
        }
    }

    fn chunk<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Incoming<'a>>, FrameError> {
        const SHORT: FrameError = FrameError::Malformed { what: "a chunk shorter than its head" };
        let (stream, rest) = frame.payload.split_first_chunk().ok_or(SHORT)?;
        let stream = u32::from_le_bytes(*stream);
        let found = self.open.iter().position(|open| open.stream == stream);
        let (index, bytes) = match (frame.flags & FIRST != 0, found) {
            (true, None) => {
                let (total, bytes) = rest.split_first_chunk().ok_or(SHORT)?;
                self.open(stream, frame.kind, u64::from_le_bytes(*total))?;
                (self.open.len() - 1, bytes)
            }
            (false, Some(index)) => (index, rest),
            _ => return Err(FrameError::Malformed { what: "a chunk out of order" }),
        };
        let Some(open) = self.open.get_mut(index) else { return Ok(None) };
        open.extend(frame.kind, bytes)?;
        if frame.flags & LAST == 0 {
            return Ok(None);
        }
        let done = self.open.swap_remove(index);
        if done.bytes.len() != done.total {
            return Err(FrameError::Malformed { what: "a message shorter than announced" });
        }
        Ok(Some(Incoming { kind: done.kind, hlc: frame.hlc, payload: Cow::Owned(done.bytes) }))
    }

    fn open(&mut self, stream: u32, kind: u8, total: u64) -> Result<(), FrameError> {
        let allowed = self.limits.message_bytes_max;
        let total = usize::try_from(total)
            .ok()
            .filter(|&total| total <= allowed)
            .ok_or(FrameError::MessageTooLong { bytes: total, allowed })?;
        let announced: usize = self.open.iter().map(|open| open.total).sum();
        if self.open.len() >= self.limits.streams_max || announced + total > self.limits.link_bytes_max {
            return Err(FrameError::TooMuchOpen);
        }
        self.open.push(OpenMessage { stream, kind, total, bytes: Vec::new() });
        Ok(())
    }
}

impl OpenMessage {
    /// Adds a chunk's bytes. Memory follows what has arrived, not what was announced.
    fn extend(&mut self, kind: u8, bytes: &[u8]) -> Result<(), FrameError> {
        let length = self.bytes.len() + bytes.len();
        if kind != self.kind || bytes.is_empty() || length > self.total {
            return Err(FrameError::Malformed { what: "a chunk that does not fit its message" });
        }
        if length > self.bytes.capacity() {
            let grown = length.max(self.bytes.len() * 2).min(self.total);
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// A whole frame in the read buffer.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    hlc: Hlc,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `input`, or how many bytes it needs to be whole.
    fn read(input: &'a [u8]) -> Result<Result<Frame<'a>, usize>, FrameError> {
        let Some((head, rest)) = input.split_first_chunk::<FRAME_HEAD_BYTES>() else {
            return Ok(Err(FRAME_HEAD_BYTES));
        };
        let [l0, l1, l2, l3, kind, flags, clock @ ..] = *head;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::FrameTooLong { bytes: length });
        }
        let Some(payload) = rest.get(..length) else { return Ok(Err(FRAME_HEAD_BYTES + length)) };
        Ok(Ok(Frame { kind, flags, hlc: Hlc(u64::from_le_bytes(clock)), payload }))
    }
}

#[cfg(test)]
mod tests;
