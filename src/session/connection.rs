//! One client connection as its worker holds it: the session, the socket's write half, and the task that reads.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio_util::io::poll_read_buf;

use crate::net::{Sender, Sent};
use crate::session::Session;
use crate::worker::Worker;

/// Unsent reply bytes over which a connection's next requests wait until the client reads.
const UNSENT_BYTES_HIGH: usize = 1 << 20;
/// What a read asks for at least.
const READ_BYTES_MIN: usize = 4 << 10;
/// What a connection's read buffer starts with.
const READ_BYTES_START: usize = 16 << 10;
/// An empty read buffer larger than this is given back.
const READ_BYTES_KEPT: usize = 256 << 10;

/// A client connection of this worker.
pub struct Connection {
    /// Its place in the worker's table.
    pub index: u32,
    /// Its state.
    pub session: RefCell<Session>,
    /// It is on the worker's list of connections to flush.
    pub dirty: Cell<bool>,
    sender: Sender,
    resume: Notify,
}

impl Connection {
    /// A new connection at place `index`.
    pub fn new(index: u32, session: Session, write: OwnedWriteHalf) -> Connection {
        Connection {
            index,
            session: RefCell::new(session),
            dirty: Cell::new(false),
            sender: Sender::new(write),
            resume: Notify::new(),
        }
    }

    /// Whether the socket is given up; commands under way may still end.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Closes the socket; the read task ends, what was not sent is lost.
    pub fn close(&self) {
        self.sender.close();
        self.resume.notify_one();
    }

    /// Lets the read task look again whether it may read.
    pub fn wake_reader(&self) {
        self.resume.notify_one();
    }

    /// Sends what is ready, without waiting. Called once a turn.
    pub fn flush(self: &Rc<Self>, worker: &Rc<Worker>) {
        self.dirty.set(false);
        if self.sender.waits.get() || self.is_closed() {
            return;
        }
        if !self.send(worker) {
            self.sender.waits.set(true);
            tokio::task::spawn_local(send_rest(Rc::clone(worker), Rc::clone(self)));
        }
    }

    /// Sends what the socket takes; `false` if it is full. Closes a connection that is done, broken, or that lets
    /// its replies pile up over the limit.
    fn send(&self, worker: &Worker) -> bool {
        let mut session = self.session.borrow_mut();
        let before = session.pipeline.out.len();
        match self.sender.send(&mut session.pipeline.out) {
            Ok(Sent::All) => {
                worker.metrics().add_bytes_out(before);
                if session.is_finished() {
                    self.close();
                }
                true
            }
            Ok(Sent::Left(left)) => {
                worker.metrics().add_bytes_out(before.saturating_sub(left));
                let limit = worker.config().client_output_buffer_limit.normal.hard_bytes;
                if limit > 0 && left > limit {
                    tracing::warn!(
                        client = session.settings.id,
                        left,
                        limit,
                        "closing: output buffer limit passed"
                    );
                    self.close();
                    return true;
                }
                false
            }
            Err(_) => {
                self.close();
                true
            }
        }
    }

    /// Whether the connection takes no further requests for now.
    fn must_wait(&self) -> bool {
        let session = self.session.borrow();
        session.is_stalled() || session.pipeline.out.len() > UNSENT_BYTES_HIGH
    }
}

/// Sends the rest of what a full socket did not take.
async fn send_rest(worker: Rc<Worker>, connection: Rc<Connection>) {
    while !connection.is_closed() {
        if connection.sender.writable().await.is_err() {
            connection.close();
        } else if connection.send(&worker) {
            break;
        }
    }
    connection.sender.waits.set(false);
    connection.wake_reader();
}

/// Reads requests until the connection ends.
pub async fn serve(worker: Rc<Worker>, connection: Rc<Connection>, mut read: OwnedReadHalf) {
    while !connection.is_closed() {
        if connection.must_wait() {
            connection.resume.notified().await;
            continue;
        }
        match read_some(&connection, &mut read).await {
            Ok(0) | Err(_) => break,
            Ok(bytes) => {
                worker.metrics().add_bytes_in(bytes);
                worker.pump(&connection);
            }
        }
    }
    connection.close();
    worker.remove(&connection);
}

async fn read_some(connection: &Connection, read: &mut OwnedReadHalf) -> io::Result<usize> {
    connection.session.borrow_mut().make_room();
    poll_fn(|cx| {
        let mut session = connection.session.borrow_mut();
        poll_read_buf(Pin::new(&mut *read), cx, &mut session.buffer)
    })
    .await
}

impl Session {
    /// Makes room in the read buffer for what the request at hand still needs, and gives an oversized one back.
    fn make_room(&mut self) {
        // At most what has been received already: an announced length alone must not take memory.
        let room = self.bytes_wanted().min(self.buffer.len()).max(READ_BYTES_MIN);
        let buffer = &mut self.buffer;
        if buffer.is_empty() && buffer.capacity() > READ_BYTES_KEPT {
            *buffer = bytes::BytesMut::new();
        }
        if buffer.capacity() == 0 {
            buffer.reserve(READ_BYTES_START.max(room));
        } else if buffer.capacity() - buffer.len() < room {
            buffer.reserve(room);
        }
    }
}
