//! The shell of the agreement on time: asks, answers, and lets the node go by what the production core finds.

use gyre_cluster::clock::CLOCK_DRIFT_MS_MAX;
use gyre_cluster::clock::agreement::{Agreement, ClockState};
use gyre_cluster::message::{ClockReading, Message};
use gyre_cluster::node::NodeId;
use gyre_cluster::time::{MonoMicros, UnixMillis};
use gyre_storage::Hlc;

use crate::clock::truth_ms;
use crate::event::{Event, NodeLocal};
use crate::mutation::Mutation;
use crate::network::{Network, Packet, WorkerAt};
use crate::node::{Node, Process, node_id};
use crate::queue::{MS, Micros};
use crate::surroundings::Env;

/// Questions and answers travel on the links of this worker.
const ASKING_WORKER: usize = 0;
/// How far the time of a node may be from the truth while at most a minority of wall clocks is wrong: the allowed drift,
/// off clocks that are themselves off by less than that (360 ms), and what a measurement may be off.
const ASTRAY_US: i64 = 1_200_000;

/// The time of one process.
pub(crate) struct Time {
    core: Agreement,
    offset_us: i64,
    /// It has been right since the process started.
    was_right: bool,
}

impl Time {
    pub(crate) fn new(now: MonoMicros) -> Time {
        Time { core: Agreement::new(CLOCK_DRIFT_MS_MAX, now), offset_us: 0, was_right: false }
    }

    /// The time.
    pub(crate) fn read(&self, now: Micros) -> UnixMillis {
        UnixMillis(self.read_us(now) / 1_000)
    }

    /// The time, in microseconds.
    fn read_us(&self, now: Micros) -> u64 {
        now.saturating_add_signed(self.offset_us)
    }

    /// Whether the wall clock is the time.
    pub(crate) fn is_agreed(&self) -> bool {
        self.core.judgement().state == ClockState::Agreed
    }

    /// How far the hybrid clocks of most members are, as far as known.
    pub(crate) fn majority(&self) -> Hlc {
        self.core.judgement().majority
    }
}

impl Node {
    /// Asks others for their clocks, finds the time, and comes again.
    pub(crate) fn compare_clocks_and_wait(&mut self, env: &mut Env) {
        self.compare_clocks(env);
        let Some(Process { time, hlc, .. }) = &mut self.process else { return };
        let at = WorkerAt { node: self.index, worker: ASKING_WORKER };
        let peers: Vec<NodeId> =
            (0..env.network.nodes).filter(|&peer| env.network.has_link(at, peer)).map(node_id).collect();
        let (asked, clock) = (time.core.ask(&peers), hlc.now());
        let wait = time.core.round_ms() * MS;
        for peer in asked {
            let Env { queue, random, network, names, .. } = env;
            let nonce = queue.now();
            network.send(queue, random, at, names[&peer], &Message::Ping { nonce }, clock);
        }
        let event = Event::Node { node: self.index, boot: self.boot, local: NodeLocal::Clock };
        env.queue.after(wait, event);
    }

    /// Finds the time.
    pub(crate) fn compare_clocks(&mut self, env: &mut Env) {
        let now = env.queue.now();
        let wall_us = self.clock.read_us(now);
        let Some(Process { time, hlc, .. }) = &mut self.process else { return };
        let members: Vec<NodeId> = (0..env.network.nodes).map(node_id).collect();
        let judgement = time.core.judge(MonoMicros(now), wall_us, hlc.now(), &members);
        time.offset_us = judgement.offset_us;
        hlc.follow(judgement.majority);
        hlc.set_settled(time.core.is_settled());
        self.check_time(env);
        let Some(Process { time, .. }) = &mut self.process else { return };
        if env.mutation == Some(Mutation::OwnClockBelieved) {
            time.offset_us -= judgement.correction_us;
        }
        self.latest_ms = self.latest_ms.max(time.read(now).0);
    }

    /// While most clocks are right, the time of a node that was right stays so.
    fn check_time(&mut self, env: &mut Env) {
        let now = env.queue.now();
        let Some(Process { time, hlc, .. }) = &mut self.process else { return };
        if !hlc.is_settled() || !env.are_most_clocks_right {
            return;
        }
        let off_us = time.read_us(now).cast_signed() - (truth_ms(now) * 1_000).cast_signed();
        let is_right = off_us.abs() <= ASTRAY_US;
        if !is_right && time.was_right && env.mutation.is_none() {
            env.journal.violated(format!("the time of node {} is {off_us} µs off", self.index));
        }
        if !is_right {
            env.strays += 1;
            env.journal.strayed();
        }
        time.was_right |= is_right;
    }

    /// Answers a question for this node's clock.
    pub(crate) fn tell_clock(&mut self, env: &mut Env, packet: &Packet, nonce: u64) {
        let now = env.queue.now();
        let wall_us = self.clock.read_us(now);
        let Some(Process { time, hlc, .. }) = &self.process else { return };
        let time_us = hlc.is_settled().then(|| time.read_us(now));
        let message = Message::Pong { nonce, reading: Some(ClockReading { wall_us, time_us }) };
        let Env { queue, random, network, .. } = env;
        network.respond(queue, random, self.index, Network::link_id(packet), &message, hlc.now());
    }

    /// A peer has told its clock.
    pub(crate) fn hear_clock(
        &mut self,
        env: &mut Env,
        peer: NodeId,
        nonce: u64,
        reading: Option<ClockReading>,
        hlc: Hlc,
    ) {
        let Some(Process { time, hlc: own, .. }) = &mut self.process else { return };
        let Some(reading) = reading else { return };
        time.core.answered(peer, MonoMicros(nonce), MonoMicros(env.queue.now()), reading, hlc);
        if !own.is_settled() {
            self.compare_clocks(env);
        }
    }
}
