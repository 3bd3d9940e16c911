//! Client connections: bytes in, requests in order, replies in the same order out.
//!
//! A [`Session`] knows no socket. It is *pumped*: it takes as many requests from its read buffer as may begin, starts
//! each on the coordinator, and is told their outcomes later, by sequence number.

pub mod acknowledgements;
pub mod connection;
pub mod hot;
pub mod pipeline;
pub mod registry;
pub mod render;
pub mod settings;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Buf, BytesMut};
use gyre_cluster::outcome::Outcome;
use gyre_protocol::command::{self, Command, Flags};
use gyre_protocol::{Args, Limits, Parsed, Parser, ProtocolError, Reply, Writer};

use crate::execute::{Arguments, Context, dispatch, immediate};
use crate::metrics::CommandIndex;
use crate::session::acknowledgements::Acknowledgements;
use crate::session::pipeline::{Access, Pending, Pipeline};
use crate::session::registry::ClientEntry;
use crate::session::render::Render;
use crate::session::settings::{ReplyMode, SessionSettings};
use crate::worker::{Turn, tag_of};

/// One client connection, without its socket.
pub struct Session {
    /// Its place in the worker's table; the upper half of its operations' tags.
    index: u32,
    /// What its commands read and change.
    pub settings: SessionSettings,
    /// What other workers see of it.
    pub entry: Arc<ClientEntry>,
    /// Bytes read and not yet taken.
    pub buffer: BytesMut,
    /// Commands under way, replies to send.
    pub pipeline: Pipeline,
    parser: Parser,
    wanted: usize,
    /// The request at the front of the buffer must wait for commands under way.
    blocked: bool,
    /// Which replicas have its writes.
    pub acknowledgements: Acknowledgements,
    /// No further request is taken: QUIT, a protocol error, or the client is gone.
    ended: bool,
}

/// What became of the request at the front of the buffer.
enum Taken {
    /// It was answered or started.
    Yes,
    /// It must wait for commands under way.
    Blocked,
}

impl Session {
    /// A session that has read nothing yet.
    pub fn new(index: u32, settings: SessionSettings, entry: Arc<ClientEntry>) -> Session {
        Session {
            index,
            settings,
            entry,
            buffer: BytesMut::new(),
            pipeline: Pipeline::default(),
            parser: Parser::new(),
            wanted: 0,
            blocked: false,
            acknowledgements: Acknowledgements::default(),
            ended: false,
        }
    }

    /// Whether its next request waits for commands under way.
    pub fn is_stalled(&self) -> bool {
        self.blocked
    }

    /// Whether everything it will ever answer is answered.
    pub fn is_finished(&self) -> bool {
        self.ended && self.pipeline.waiting() == 0
    }

    /// How many bytes the request at hand still needs at least.
    pub fn bytes_wanted(&self) -> usize {
        self.wanted
    }

    /// Takes requests from the read buffer until it holds no whole one, or the next must wait.
    pub fn pump(&mut self, turn: &mut Turn<'_>) {
        self.blocked = false;
        let mut parser = std::mem::take(&mut self.parser);
        let mut buffer = std::mem::take(&mut self.buffer);
        while !self.ended {
            let limits = self.limits(turn);
            match parser.parse(&buffer, &limits) {
                Ok(Parsed::Request { consumed }) => match self.take(parser.args(&buffer), turn) {
                    Taken::Yes => buffer.advance(consumed),
                    Taken::Blocked => {
                        self.blocked = true;
                        break;
                    }
                },
                Ok(Parsed::Empty { consumed }) => buffer.advance(consumed),
                Ok(Parsed::Incomplete { wanted }) => {
                    self.wanted = wanted;
                    break;
                }
                Err(error) => self.end_with(&error),
            }
        }
        self.parser = parser;
        self.buffer = buffer;
    }

    /// Hands the outcome of operation `sequence` in.
    pub fn complete(&mut self, sequence: u32, outcome: &Outcome, turn: &mut Turn<'_>) {
        if let Some((command, started_us)) = self.pipeline.complete(sequence, outcome, turn.now.wall.0) {
            let micros = turn.record(command, started_us);
            turn.note_slow_by_name(micros, command, &self.entry);
            match outcome {
                Outcome::Failed(failure) => turn.count_failure(command, &failure.to_string()),
                Outcome::Refused(error) => turn.count_failure(command, &error.to_string()),
                _ => {}
            }
        }
    }

    /// Hands the reply of asynchronous command `sequence` in.
    pub fn complete_reply(
        &mut self,
        sequence: u32,
        reply: &Reply,
        arguments: &Arguments,
        turn: &mut Turn<'_>,
    ) {
        let done =
            self.pipeline.complete_with(sequence, |out, resp, _| reply.write(&mut Writer::new(out, resp)));
        if let Some((command, started_us)) = done {
            let micros = turn.record(command, started_us);
            if let Reply::Error(text) = reply {
                turn.count_failure(command, text);
            }
            if !command.waits() {
                turn.note_slow(micros, arguments, &self.entry);
            }
        }
    }

    /// Takes no further request; commands under way may end.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Learns that write `sequence` has come to rest with `acked` replicas (for WAIT).
    pub fn settled(&mut self, sequence: u32, acked: usize) {
        self.acknowledgements.settled(sequence, acked);
    }

    fn limits(&self, turn: &Turn<'_>) -> Limits {
        let config = turn.config;
        if self.settings.authenticated {
            Limits { bulk_bytes_max: config.proto_max_bulk_len, ..Limits::DEFAULT }
        } else {
            Limits::UNAUTHENTICATED
        }
    }

    fn end_with(&mut self, error: &ProtocolError) {
        let resp = self.settings.resp;
        self.pipeline.immediate(|out| Writer::new(out, resp).error(&error.to_string()));
        self.ended = true;
    }

    /// Answers or starts one request, unless it must wait.
    fn take(&mut self, args: Args<'_>, turn: &mut Turn<'_>) -> Taken {
        let command = match command::resolve(args) {
            Ok(command) => command,
            Err(refusal) => {
                self.refuse(&immediate::refusals::explain(args).unwrap_or(refusal), turn);
                return Taken::Yes;
            }
        };
        if !self.settings.authenticated && !command.flags.contains(Flags::NO_AUTH) {
            self.refuse(&Reply::error("NOAUTH Authentication required."), turn);
            return Taken::Yes;
        }
        if let Some(taken) = hot::start(self, command, args, turn) {
            return taken;
        }
        if immediate::is_immediate(command) {
            self.answer_at_once(command, args, turn)
        } else {
            self.start_task(command, args, turn)
        }
    }

    fn refuse(&mut self, refusal: &Reply, turn: &mut Turn<'_>) {
        if let Reply::Error(text) = refusal {
            turn.count_error(text);
        }
        let resp = self.settings.resp;
        if !self.take_silence() {
            self.pipeline.immediate(|out| refusal.write(&mut Writer::new(out, resp)));
        }
    }

    fn answer_at_once(&mut self, command: &'static Command, args: Args<'_>, turn: &mut Turn<'_>) -> Taken {
        let mode_before = self.settings.reply_mode;
        let mut cx = immediate::Immediate {
            settings: &mut self.settings,
            node: turn.node,
            client: &self.entry,
            worker: turn.worker_index,
            now: turn.now.wall,
        };
        let reply = immediate::execute(&mut cx, command, args);
        self.entry.note_settings(&self.settings);
        self.note_command(command, turn);
        turn.record(CommandIndex::of(command), turn.now.mono.0);
        if let Reply::Error(text) = &reply {
            turn.count_failure(CommandIndex::of(command), text);
        }
        let silent = match (mode_before, self.settings.reply_mode) {
            (ReplyMode::SkipNext, mode) => {
                if mode == ReplyMode::SkipNext {
                    self.settings.reply_mode = ReplyMode::On;
                }
                true
            }
            (_, ReplyMode::On) => false,
            // CLIENT REPLY OFF and SKIP are themselves not answered.
            (_, ReplyMode::Off | ReplyMode::SkipNext) => true,
        };
        if !silent {
            let resp = self.settings.resp;
            self.pipeline.immediate(|out| reply.write(&mut Writer::new(out, resp)));
        }
        self.ended |= self.settings.close_after_reply;
        Taken::Yes
    }

    fn start_task(&mut self, command: &'static Command, args: Args<'_>, turn: &mut Turn<'_>) -> Taken {
        let (key_hash, access) = hot::access_of(command, args, self.settings.db);
        if !self.pipeline.may_begin(key_hash, access) {
            return Taken::Blocked;
        }
        let sequence = self.begin(command, key_hash, access, Render::Custom, turn);
        let arguments: Arguments = args.iter().collect();
        let worker = Rc::clone(turn.worker);
        let cx = Context::new(Rc::clone(&worker), self.settings.db, self.settings.levels, self.settings.id);
        let index = self.index;
        tokio::task::spawn_local(async move {
            let reply = dispatch::run(&cx, command, &arguments).await;
            worker.complete_reply(index, sequence, &reply, &arguments);
        });
        Taken::Yes
    }

    /// Takes a command into the pipeline and into the statistics.
    fn begin(
        &mut self,
        command: &'static Command,
        key_hash: u64,
        access: Access,
        render: Render,
        turn: &mut Turn<'_>,
    ) -> u32 {
        self.note_command(command, turn);
        let silent = self.take_silence();
        self.pipeline.begin(Pending {
            key_hash,
            access,
            resp: self.settings.resp,
            render,
            command: CommandIndex::of(command),
            started_us: turn.now.mono.0,
            silent,
        })
    }

    fn note_command(&self, command: &'static Command, turn: &Turn<'_>) {
        self.entry.last_active_ms.store(turn.now.wall.0, Ordering::Relaxed);
        self.entry.last_command.store(CommandIndex::of(command).into(), Ordering::Relaxed);
        // Only this worker writes it.
        let commands = self.entry.commands.load(Ordering::Relaxed);
        self.entry.commands.store(commands + 1, Ordering::Relaxed);
    }

    /// Whether the command at hand is not to be answered; uses `CLIENT REPLY SKIP` up.
    fn take_silence(&mut self) -> bool {
        match self.settings.reply_mode {
            ReplyMode::On => false,
            ReplyMode::Off => true,
            ReplyMode::SkipNext => {
                self.settings.reply_mode = ReplyMode::On;
                true
            }
        }
    }

    fn tag(&self, sequence: u32) -> gyre_cluster::coordinator::Tag {
        tag_of(self.index, sequence)
    }
}
