//! The wire between network namespaces: a switch in this process, which loses, delays and cuts what it is told to.
//!
//! Every namespace has a TUN device whose other end is a file here; a packet that is read from one is written to the one
//! of its destination. This does what a bridge with `tc netem` and packet filters would, for each direction of each
//! pair of hosts by itself, on kernels that have no netem, and without a tool to install.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::ioctl;

/// Packets under way at most, in all delayed links together; what comes on top is lost, as in any router.
const DELAYED_PACKETS_MAX: usize = 20_000;
/// The longest packet that a device takes.
const PACKET_BYTES_MAX: usize = 65_536;
/// Seed of the losses.
const SEED: u64 = 7;

/// What happens to the packets of one direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Condition {
    /// Nothing passes.
    pub(crate) cut: bool,
    /// Of a thousand packets so many are lost.
    pub(crate) loss_per_mille: u64,
    /// How long each packet takes.
    pub(crate) delay: Duration,
}

/// A packet that is under way.
struct Delayed {
    due: Instant,
    /// In which order packets came, for those due at once.
    number: u64,
    to: usize,
    packet: Vec<u8>,
}

struct Shared {
    devices: Vec<File>,
    /// By sender, then receiver.
    conditions: Mutex<Vec<Vec<Condition>>>,
    delayed: Mutex<BinaryHeap<Delayed>>,
    has_delayed: Condvar,
    packets: AtomicU64,
    stopping: AtomicBool,
}

/// A running switch between hosts, which are numbered as their devices were given.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Wire {
    /// Begins to pass packets between `devices`. `host_of` finds the host of an IPv4 address.
    pub(crate) fn start(
        devices: Vec<File>,
        host_of: impl Fn([u8; 4]) -> Option<usize> + Clone + Send + 'static,
    ) -> Wire {
        let hosts = devices.len();
        let shared = Arc::new(Shared {
            devices,
            conditions: Mutex::new(vec![vec![Condition::default(); hosts]; hosts]),
            delayed: Mutex::default(),
            has_delayed: Condvar::new(),
            packets: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let mut threads: Vec<_> = (0..hosts)
            .map(|host| {
                let (shared, host_of) = (Arc::clone(&shared), host_of.clone());
                thread::spawn(move || shared.pass_from(host, host_of))
            })
            .collect();
        let late = Arc::clone(&shared);
        threads.push(thread::spawn(move || late.deliver_late()));
        Wire { shared, threads }
    }

    /// Puts `condition` in force for what `from` sends to `to`.
    pub(crate) fn set(&self, from: usize, to: usize, condition: Condition) {
        self.shared.conditions.lock().unwrap()[from][to] = condition;
    }

    /// Ends the switch, once the devices are gone.
    pub(crate) fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.has_delayed.notify_all();
        for thread in self.threads.drain(..) {
            // Whoever panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Passes on what `host` sends until its device is gone.
    fn pass_from(&self, host: usize, host_of: impl Fn([u8; 4]) -> Option<usize>) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while let Ok(length) = (&self.devices[host]).read(&mut buffer) {
            let packet = &buffer[..length];
            if let Some(to) = destination(packet).and_then(&host_of) {
                self.pass(host, to, packet);
            }
        }
    }

    fn pass(&self, from: usize, to: usize, packet: &[u8]) {
        let condition = self.conditions.lock().unwrap()[from][to];
        let number = self.packets.fetch_add(1, Ordering::Relaxed);
        if condition.cut || scramble(SEED ^ number) % 1_000 < condition.loss_per_mille {
            return;
        }
        if condition.delay.is_zero() {
            return self.deliver(to, packet);
        }
        let mut delayed = self.delayed.lock().unwrap();
        if delayed.len() < DELAYED_PACKETS_MAX {
            let due = Instant::now() + condition.delay;
            delayed.push(Delayed { due, number, to, packet: packet.to_vec() });
            self.has_delayed.notify_one();
        }
    }

    fn deliver(&self, to: usize, packet: &[u8]) {
        // A device that is down or gone loses packets like a cable that is out.
        let _ = (&self.devices[to]).write(packet);
    }

    /// Delivers delayed packets when they are due.
    fn deliver_late(&self) {
        let mut delayed = self.delayed.lock().unwrap();
        while !self.stopping.load(Ordering::Relaxed) {
            let now = Instant::now();
            let Some(first) = delayed.peek() else {
                delayed = self.has_delayed.wait(delayed).unwrap();
                continue;
            };
            if first.due > now {
                let wait = first.due - now;
                delayed = self.has_delayed.wait_timeout(delayed, wait).unwrap().0;
                continue;
            }
            if let Some(due) = delayed.pop() {
                drop(delayed);
                self.deliver(due.to, &due.packet);
                delayed = self.delayed.lock().unwrap();
            }
        }
    }
}

// The heap has the greatest first: that is the packet due first.
impl Ord for Delayed {
    fn cmp(&self, other: &Delayed) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Delayed) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Delayed) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Delayed {}

/// The destination of an IPv4 packet; `None` for other packets.
fn destination(packet: &[u8]) -> Option<[u8; 4]> {
    let is_ipv4 = packet.first().is_some_and(|byte| byte >> 4 == 4);
    packet.get(16..20).filter(|_| is_ipv4)?.try_into().ok()
}

/// The finaliser of splitmix64: equal numbers are lost in equal runs, as far as packets come in equal order.
pub(crate) fn scramble(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A new TUN device `name`, of raw IP packets, in the namespace of this process. It lives until it is deleted or its
/// file is closed.
///
/// # Errors
/// Whatever the system says, most often that it is not permitted.
pub(crate) fn tun_device(name: &str) -> io::Result<File> {
    /// `struct ifreq` of linux/if.h, as TUNSETIFF reads it.
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; 16],
        flags: i16,
        rest: [u8; 22],
    }
    /// `_IOW('T', 202, int)`, `IFF_TUN | IFF_NO_PI` of linux/if_tun.h.
    const TUNSETIFF: ioctl::Opcode = 0x4004_54ca;
    const TUN_WITHOUT_HEADER: i16 = 0x0001 | 0x1000;

    let mut request = InterfaceRequest { name: [0; 16], flags: TUN_WITHOUT_HEADER, rest: [0; 22] };
    // The last byte stays zero.
    request.name[..15].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    #[expect(unsafe_code, reason = "there is no other way to make a TUN device")]
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, 40 bytes, which `InterfaceRequest` is.
    unsafe {
        ioctl::ioctl(&file, ioctl::Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request))?;
    }
    Ok(file)
}

mod tests {
    use super::*;

    #[test]
    fn of_delayed_packets_the_one_due_first_comes_first() {
        let now = Instant::now();
        let packet =
            |ms, number| Delayed { due: now + Duration::from_millis(ms), number, to: 0, packet: Vec::new() };
        let mut heap = BinaryHeap::from([packet(20, 1), packet(10, 3), packet(10, 2)]);
        let order: Vec<u64> = std::iter::from_fn(|| heap.pop()).map(|packet| packet.number).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn a_destination_is_read_from_ipv4_packets_only() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[198, 18, 3, 4]);
        assert_eq!(destination(&packet), Some([198, 18, 3, 4]));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
    }

    #[test]
    fn losses_come_as_often_as_asked() {
        let lost = (0..100_000).filter(|number| scramble(SEED ^ number) % 1_000 < 50).count();
        assert!((4_500..5_500).contains(&lost), "{lost}");
    }
}
