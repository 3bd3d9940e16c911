//! What the workload needs of a client, so that it is written once for all of them.

use crate::job::Job;

/// A reply, without the differences between RESP2 and RESP3 that clients keep.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// No value.
    Nil,
    /// An integer, or a boolean as 0 or 1.
    Int(i64),
    /// A status or a string.
    Text(Vec<u8>),
    /// A list of replies.
    List(Vec<Reply>),
}

impl Reply {
    /// The reply `+OK`, as text.
    pub fn ok() -> Reply {
        Reply::Text(b"OK".to_vec())
    }

    /// A string reply.
    pub fn text(text: impl AsRef<[u8]>) -> Reply {
        Reply::Text(text.as_ref().to_vec())
    }
}

/// A reply or the error's text.
pub type Answer = Result<Reply, String>;

/// The lifetime that SET gives a key.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// Seconds from now.
    Ex(u64),
    /// Milliseconds from now.
    Px(u64),
    /// Unix seconds.
    ExAt(u64),
    /// Unix milliseconds.
    PxAt(u64),
    /// The lifetime that the key has.
    Keep,
}

/// The condition of SET.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Only if the key is missing.
    Nx,
    /// Only if the key is there.
    Xx,
}

/// The options of SET.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetOptions {
    /// EX, PX, EXAT, PXAT or KEEPTTL.
    pub expiry: Option<Expiry>,
    /// NX or XX.
    pub when: Option<When>,
    /// GET.
    pub get: bool,
}

/// One client library in one mode.
pub trait Face: Sized {
    /// Whether this is a cluster driver.
    const CLUSTER: bool;
    /// Whether a pipeline may hold keys of one slot only.
    const PIPELINE_OF_ONE_SLOT: bool = false;
    /// Whether a pipeline with a failing command still tells the other replies.
    const PIPELINE_TELLS_EACH_ERROR: bool = true;

    /// Connects to `address` with database `db`.
    async fn open(job: &Job, address: &str, db: u8) -> Result<Self, String>;
    /// SET through the client's own options.
    async fn set(&mut self, key: &[u8], value: &[u8], options: SetOptions) -> Answer;
    /// GET.
    async fn get(&mut self, key: &[u8]) -> Answer;
    /// MSET.
    async fn mset(&mut self, pairs: &[(String, String)]) -> Answer;
    /// MGET.
    async fn mget(&mut self, keys: &[String]) -> Answer;
    /// DEL.
    async fn del(&mut self, keys: &[String]) -> Answer;
    /// EXISTS.
    async fn exists(&mut self, keys: &[String]) -> Answer;
    /// INCR.
    async fn incr(&mut self, key: &str) -> Answer;
    /// Any command; a cluster driver routes it by its first key.
    async fn call(&mut self, words: &[&[u8]]) -> Answer;
    /// The answers to many commands sent at once.
    async fn pipeline(&mut self, commands: Vec<Vec<String>>) -> Result<Vec<Answer>, String>;
    /// Every key that a whole SCAN returns; a cluster driver asks every primary.
    async fn scan(&mut self, pattern: &str) -> Result<Vec<String>, String>;
    /// Any command, on the connection that serves the entry node.
    async fn own(&mut self, words: &[&str]) -> Answer;
    /// Closes the client.
    async fn close(self) {}
}
