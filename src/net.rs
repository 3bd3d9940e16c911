//! Non-blocking sending, shared by client connections and peer links.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;

use tokio::net::tcp::OwnedWriteHalf;

/// A sent-out buffer larger than this is given back rather than kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The write half of a socket, and how much of the buffer at hand it has taken.
pub struct Sender {
    write: OwnedWriteHalf,
    sent: Cell<usize>,
    closed: Cell<bool>,
    /// The socket is full, and a task waits until it takes more.
    pub waits: Cell<bool>,
}

/// How far sending got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The socket took everything; the buffer is empty.
    All,
    /// It is full; so many bytes are left.
    Left(usize),
}

impl Sender {
    /// A sender that has sent nothing.
    pub fn new(write: OwnedWriteHalf) -> Sender {
        Sender { write, sent: Cell::new(0), closed: Cell::new(false), waits: Cell::new(false) }
    }

    /// Gives `out` to the socket without waiting. Bytes may be appended to `out` between calls, never removed.
    pub fn send(&self, out: &mut Vec<u8>) -> io::Result<Sent> {
        while let Some(rest) = out.get(self.sent.get()..).filter(|rest| !rest.is_empty()) {
            match self.write.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.sent.set(self.sent.get() + bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = rest.len();
                    self.drop_sent(out);
                    return Ok(Sent::Left(left));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sent.set(0);
        if out.capacity() > KEPT_BYTES_MAX {
            *out = Vec::new();
        } else {
            out.clear();
        }
        Ok(Sent::All)
    }

    /// Forgets what was sent, once that is at least half of the buffer: a buffer that never drains stays bounded.
    fn drop_sent(&self, out: &mut Vec<u8>) {
        if self.sent.get() * 2 >= out.len() {
            out.drain(..self.sent.get());
            self.sent.set(0);
        }
    }

    /// Returns once the socket takes more, or has failed.
    pub async fn writable(&self) -> io::Result<()> {
        self.write.writable().await
    }

    /// Closes the socket both ways. What was not sent is lost; a pending read ends.
    pub fn close(&self) {
        if !self.closed.replace(true) {
            // An error here means that the other side was faster.
            let _ = socket2::SockRef::from(self.write.as_ref()).shutdown(Shutdown::Both);
        }
    }

    /// Whether [`Sender::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}
