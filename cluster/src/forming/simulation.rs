//! Formation under faults: seeded worlds of processes that start late, crash in the middle of anything and come back,
//! over a network that delays, reorders, drops, duplicates and cuts.
//!
//! Safety, at every step: all topologies on all disks are of one cluster. Liveness, after the faults: every process
//! belongs to it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::*;
use crate::random::Random;
use crate::ring::VNODES_DEFAULT;

/// How many worlds a plain test run simulates; `GYRE_FORMING_WORLDS` sets another number.
const WORLDS: u64 = 300;
const FAULTS_UNTIL_MS: u64 = 25_000;
const END_MS: u64 = 60_000;
const TICK_MS: u64 = 100;
/// The settle time of a calm world.
pub(super) const SETTLE_MS: u64 = 500;

/// What a world's seed decides.
struct Rng(Random);

impl Rng {
    fn new(seed: u64) -> Rng {
        Rng(Random::new(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Tick { process: usize, life: u64 },
    Start { process: usize },
    Crash { process: usize },
    Cut { pair: (usize, usize) },
    Mend { pair: (usize, usize) },
    Linked { from: usize, life: u64, to: usize, is_seed: bool },
    Arrive { from: usize, to: usize, bytes: Vec<u8> },
}

enum Role {
    Down,
    Fresh(Box<Forming>),
    Member,
}

struct Process {
    id: NodeId,
    seeds: Vec<usize>,
    role: Role,
    /// Counts the starts: also the incarnation.
    life: u64,
    promise: Option<Vec<u8>>,
    topology: Option<Vec<u8>>,
    /// Who it can send to.
    links: BTreeSet<usize>,
    /// At which of its seeds' processes a handshake is done.
    resolved: BTreeSet<usize>,
}

pub(super) struct World {
    rng: Rng,
    now_ms: u64,
    order: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    processes: Vec<Process>,
    cut: BTreeSet<(usize, usize)>,
    drop_percent: u64,
    delay_ms: u64,
    crash_percent: u64,
    settle_ms: u64,
    /// Whether processes propose that are not the lowest of their core.
    has_rivals: bool,
    /// The longest time for which a crashed process stays down.
    pause_ms: u64,
    faults_until_ms: u64,
    /// If set, seed lists change when processes start again, and all that ever were name this process.
    root: Option<usize>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.index(8);
        let root = rng.percent(40).then(|| rng.index(count));
        let seeds = match root {
            Some(root) => (0..count).map(|_| list_with(&mut rng, count, root)).collect(),
            None => seed_lists(&mut rng, count),
        };
        let drop_percent = [0, 5, 30, 60][rng.index(4)];
        let delay_ms = [2, 50, 400, 3_000][rng.index(4)];
        let crash_percent = [0, 1, 5, 20][rng.index(4)];
        let settle_ms = [0, 100, 1_000][rng.index(3)];
        let pause_ms = [20, 500, 8_000][rng.index(3)];
        let has_rivals = rng.percent(50);
        let mut world = World::of(seeds, rng);
        world.drop_percent = drop_percent;
        world.delay_ms = delay_ms;
        world.crash_percent = crash_percent;
        world.settle_ms = settle_ms;
        world.pause_ms = pause_ms;
        world.has_rivals = has_rivals;
        world.faults_until_ms = FAULTS_UNTIL_MS;
        world.root = root;
        world.plan_faults();
        world
    }

    fn of(seeds: Vec<Vec<usize>>, mut rng: Rng) -> World {
        let processes = seeds
            .into_iter()
            .map(|seeds| Process {
                id: NodeId::from_random(rng.next()),
                seeds,
                role: Role::Down,
                life: 0,
                promise: None,
                topology: None,
                links: BTreeSet::new(),
                resolved: BTreeSet::new(),
            })
            .collect();
        World {
            rng,
            now_ms: 0,
            order: 0,
            agenda: BinaryHeap::new(),
            processes,
            cut: BTreeSet::new(),
            drop_percent: 0,
            delay_ms: 0,
            crash_percent: 0,
            settle_ms: SETTLE_MS,
            has_rivals: false,
            pause_ms: 1,
            faults_until_ms: 0,
            root: None,
        }
    }

    /// A world without faults of processes with these seeds, each starting at its time.
    pub(super) fn calm(processes: &[(&[usize], u64)]) -> World {
        let seeds = processes.iter().map(|(seeds, _)| seeds.to_vec()).collect();
        let mut world = World::of(seeds, Rng::new(processes.len() as u64));
        for (process, &(_, at)) in processes.iter().enumerate() {
            world.after(at, Happening::Start { process });
        }
        world
    }

    /// Runs until `end_ms`. Answers the state in which each process belongs to the cluster, as it knows it.
    pub(super) fn states_at(&mut self, end_ms: u64) -> Vec<Option<MemberState>> {
        self.run_until(end_ms);
        let topologies = self.topologies();
        let states = self.processes.iter().enumerate();
        states.map(|(index, process)| Some(topologies.get(&index)?.members.get(&process.id)?.state)).collect()
    }

    /// What the process is waiting for.
    pub(super) fn waiting(&self, process: usize) -> Waiting {
        match &self.processes[process].role {
            Role::Fresh(forming) => forming.waiting(self.now()),
            Role::Down | Role::Member => Waiting::Done,
        }
    }

    fn plan_faults(&mut self) {
        let count = self.processes.len();
        let spread = [1, 500, 10_000][self.rng.index(3)];
        let crashes_max = [2, 20][self.rng.index(2)];
        for process in 0..count {
            let at = self.rng.below(spread);
            self.after(at, Happening::Start { process });
            // Whatever happened to it, it is back at the end.
            self.after(FAULTS_UNTIL_MS + 100, Happening::Start { process });
            let crashes = if self.rng.percent(40) { 1 + self.rng.below(crashes_max) } else { 0 };
            for _ in 0..crashes {
                let at = self.rng.below(FAULTS_UNTIL_MS);
                self.after(at, Happening::Crash { process });
            }
        }
        for _ in 0..self.rng.below(6) {
            let pair = (self.rng.index(count), self.rng.index(count));
            let pair = (pair.0.min(pair.1), pair.0.max(pair.1));
            let (from, length) = (self.rng.below(FAULTS_UNTIL_MS), self.rng.below(15_000));
            self.after(from, Happening::Cut { pair });
            self.after((from + length).min(FAULTS_UNTIL_MS), Happening::Mend { pair });
        }
    }

    fn after(&mut self, ms: u64, happening: Happening) {
        self.order += 1;
        self.agenda.push(Reverse((self.now_ms + ms, self.order, happening)));
    }

    fn has_faults(&self) -> bool {
        self.now_ms < self.faults_until_ms
    }

    fn delay(&mut self) -> u64 {
        let longest = if self.has_faults() { self.delay_ms } else { 20 };
        1 + self.rng.below(longest)
    }

    fn now(&self) -> MonoMicros {
        MonoMicros(1).plus_millis(self.now_ms)
    }

    fn is_up(&self, process: usize) -> bool {
        !matches!(self.processes[process].role, Role::Down)
    }

    fn can_reach(&self, a: usize, b: usize) -> bool {
        self.is_up(a) && self.is_up(b) && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn index_of(&self, node: NodeId) -> Option<usize> {
        self.processes.iter().position(|process| process.id == node)
    }

    fn run(&mut self) {
        self.run_until(END_MS);
        self.assert_all_belong();
    }

    fn run_until(&mut self, end_ms: u64) {
        while self.agenda.peek().is_some_and(|Reverse((at, ..))| *at <= end_ms) {
            let Some(Reverse((at, _, happening))) = self.agenda.pop() else { break };
            self.now_ms = at;
            self.happen(happening);
        }
        self.now_ms = end_ms;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Start { process } if !self.is_up(process) => self.start(process),
            Happening::Start { .. } => {}
            Happening::Crash { process } => self.crash(process),
            Happening::Tick { process, life } => {
                if self.processes[process].life == life && self.is_up(process) {
                    self.after(TICK_MS, Happening::Tick { process, life });
                    self.dial_seeds(process);
                    self.feed(process, Event::Tick);
                }
            }
            Happening::Cut { pair } => {
                self.cut.insert(pair);
                self.unlink(pair.0, pair.1);
                self.unlink(pair.1, pair.0);
            }
            Happening::Mend { pair } => {
                self.cut.remove(&pair);
            }
            Happening::Linked { from, life, to, is_seed } => {
                if self.processes[from].life == life && self.can_reach(from, to) {
                    self.linked(from, to, is_seed);
                }
            }
            Happening::Arrive { from, to, bytes } => {
                if self.can_reach(to, to) {
                    self.arrive(from, to, &bytes);
                }
            }
        }
    }

    fn start(&mut self, index: usize) {
        if let Some(root) = self.root
            && self.rng.percent(50)
        {
            self.processes[index].seeds = list_with(&mut self.rng, self.processes.len(), root);
        }
        let (random, now, settle_ms) = (u128::from(self.rng.next()) << 64, self.now(), self.settle_ms);
        // Faults that end let the chosen one win.
        let has_rivals = self.has_rivals && self.has_faults();
        let process = &mut self.processes[index];
        process.life += 1;
        let options = FormingOptions {
            member: member(process.id, index, process.life),
            cluster_name: "world".into(),
            replication_factor: 3,
            seeds: process.seeds.iter().map(|&seed| address(seed)).collect(),
            settle_ms,
            random: random | u128::from(process.life),
        };
        let saved = match (&process.topology, &process.promise) {
            (Some(bytes), _) => Saved::Topology(Topology::decode(bytes).unwrap()),
            (None, Some(bytes)) => Saved::Promise(Promise::decode(bytes).unwrap()),
            (None, None) => Saved::Nothing,
        };
        let mut effects = Vec::new();
        let mut forming = Forming::start(options, saved, now, &mut effects);
        forming.is_rival = has_rivals && now.0 % 3 != 0;
        process.role = Role::Fresh(Box::new(forming));
        let life = process.life;
        self.perform(index, effects);
        self.after(self.now_ms % 7, Happening::Tick { process: index, life });
    }

    fn crash(&mut self, index: usize) {
        if !self.has_faults() {
            return;
        }
        self.processes[index].role = Role::Down;
        for other in 0..self.processes.len() {
            self.unlink(other, index);
        }
        self.processes[index].links.clear();
        self.processes[index].resolved.clear();
        let pause = self.rng.below(self.pause_ms);
        self.after(pause, Happening::Start { process: index });
    }

    fn unlink(&mut self, from: usize, to: usize) {
        self.processes[from].links.remove(&to);
        if self.processes[from].resolved.remove(&to) {
            let lost: Vec<usize> = self.seeds_at(from, to);
            for seed in lost {
                self.feed(from, Event::SeedLost { seed });
            }
        }
    }

    fn seeds_at(&self, from: usize, to: usize) -> Vec<usize> {
        let seeds = self.processes[from].seeds.iter().enumerate();
        seeds.filter(|&(_, &target)| target == to).map(|(seed, _)| seed).collect()
    }

    fn dial_seeds(&mut self, from: usize) {
        let (life, seeds) = (self.processes[from].life, self.processes[from].seeds.clone());
        for to in seeds {
            if !self.processes[from].resolved.contains(&to) {
                let delay = self.delay();
                self.after(delay, Happening::Linked { from, life, to, is_seed: true });
            }
        }
    }

    fn linked(&mut self, from: usize, to: usize, is_seed: bool) {
        if from != to {
            self.processes[to].links.insert(from);
        }
        self.processes[from].links.insert(to);
        if !is_seed {
            return;
        }
        self.processes[from].resolved.insert(to);
        for seed in self.seeds_at(from, to) {
            let node = self.processes[to].id;
            let is_self = from == to;
            self.feed(
                from,
                if is_self { Event::SeedIsSelf { seed } } else { Event::SeedResolved { seed, node } },
            );
        }
    }

    fn arrive(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let message = FormingMessage::decode(bytes).expect("what is sent can be read");
        let from = self.processes[from].id;
        if !matches!(self.processes[to].role, Role::Member) {
            return self.feed(to, Event::Message { from, message });
        }
        let mut topology = Topology::decode(self.processes[to].topology.as_ref().unwrap()).unwrap();
        let (changed, answer) = greet(&mut topology, from, &message);
        if changed.any() {
            self.processes[to].topology = Some(topology.encode());
        }
        if let Some(message) = answer {
            self.perform(to, vec![Effect::Send { to: from, message }]);
        }
    }

    fn feed(&mut self, index: usize, event: Event) {
        let now = self.now();
        let mut effects = Vec::new();
        if let Role::Fresh(forming) = &mut self.processes[index].role {
            forming.step(now, event, &mut effects);
        }
        self.perform(index, effects);
    }

    /// Performs effects in order; a process may crash before any of them.
    fn perform(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            let matters = !matches!(effect, Effect::Dial { .. });
            if matters && self.has_faults() && self.rng.below(1_000) < self.crash_percent {
                return self.crash(index);
            }
            match effect {
                Effect::SavePromise(promise) => self.processes[index].promise = Some(promise.encode()),
                Effect::Join { topology, .. } => {
                    assert!(topology.members.contains_key(&self.processes[index].id));
                    self.processes[index].topology = Some(topology.encode());
                    self.processes[index].role = Role::Member;
                    self.assert_one_cluster();
                }
                Effect::Send { to, message } => self.send(index, to, &message),
                Effect::Dial { node, addr } => {
                    let to = usize::from(addr.port);
                    assert_eq!(self.processes[to].id, node);
                    if !self.processes[index].links.contains(&to) {
                        let (delay, life) = (self.delay(), self.processes[index].life);
                        self.after(delay, Happening::Linked { from: index, life, to, is_seed: false });
                    }
                }
                Effect::Refused(refusal) => panic!("{:?} was refused: {refusal}", self.processes[index].id),
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: &FormingMessage) {
        let Some(to) = self.index_of(to) else { panic!("a message to a node that never was") };
        assert_ne!(from, to, "a node does not talk to itself");
        let is_cut = !self.processes[from].links.contains(&to);
        if is_cut || (self.has_faults() && self.rng.percent(self.drop_percent)) {
            return;
        }
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        for _ in 0..=u64::from(self.rng.percent(5)) {
            let delay = self.delay();
            self.after(delay, Happening::Arrive { from, to, bytes: bytes.clone() });
        }
    }

    fn topologies(&self) -> BTreeMap<usize, Topology> {
        let stored = self.processes.iter().enumerate();
        stored
            .filter_map(|(index, process)| process.topology.as_ref().map(|bytes| (index, bytes)))
            .map(|(index, bytes)| (index, Topology::decode(bytes).unwrap()))
            .collect()
    }

    fn assert_one_cluster(&self) {
        let clusters: BTreeSet<u128> =
            self.topologies().values().map(|topology| topology.cluster_id).collect();
        assert!(clusters.len() <= 1, "two clusters: {clusters:x?}");
    }

    fn assert_all_belong(&self) {
        self.assert_one_cluster();
        let topologies = self.topologies();
        for (index, process) in self.processes.iter().enumerate() {
            let waiting = self.waiting(index);
            let belongs = topologies.get(&index).is_some_and(|own| own.members.contains_key(&process.id));
            assert!(belongs, "process {index} belongs to nothing: {waiting}");
        }
    }
}

pub(super) fn address(index: usize) -> Endpoint {
    Endpoint::new("sim", u16::try_from(index).unwrap())
}

pub(super) fn member(id: NodeId, index: usize, incarnation: u64) -> Member {
    Member {
        id,
        incarnation,
        revision: 0,
        state: MemberState::Joining,
        client_addr: address(index),
        peer_addr: address(index),
        rack: None,
        vnodes: VNODES_DEFAULT,
        build: String::new(),
    }
}

/// A random seed list that names `root`.
fn list_with(rng: &mut Rng, count: usize, root: usize) -> Vec<usize> {
    let mut list: Vec<usize> = (0..rng.below(3)).map(|_| rng.index(count)).collect();
    list.push(root);
    list
}

/// Random seed lists, all of which lead to one node: the condition under which one cluster is promised.
fn seed_lists(rng: &mut Rng, count: usize) -> Vec<Vec<usize>> {
    loop {
        let density = 1 + rng.below(3);
        let mut lists: Vec<Vec<usize>> = (0..count)
            .map(|_| (0..rng.below(density + 1)).map(|_| rng.index(count)).collect::<Vec<usize>>())
            .collect();
        if rng.percent(25) {
            let common: Vec<usize> = (0..count).filter(|_| rng.percent(50)).collect();
            lists = vec![common; count];
        }
        if (0..count).any(|root| (0..count).all(|node| leads_to(&lists, node, root))) {
            return lists;
        }
    }
}

fn leads_to(lists: &[Vec<usize>], node: usize, root: usize) -> bool {
    let (mut seen, mut open) = (BTreeSet::from([node]), vec![node]);
    while let Some(node) = open.pop() {
        open.extend(lists[node].iter().copied().filter(|&next| seen.insert(next)));
    }
    seen.contains(&root)
}

#[test]
fn fresh_nodes_end_in_one_cluster_whatever_fails() {
    let worlds =
        std::env::var("GYRE_FORMING_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(WORLDS);
    let first = std::env::var("GYRE_FORMING_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    for seed in first..first + worlds {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        if let Err(panic) = outcome {
            eprintln!("formation failed in world GYRE_FORMING_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
