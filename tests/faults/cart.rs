//! The shopping cart: two sides of a broken network put different things into it, and nothing is lost.

use crate::network::Network;
use crate::processes::FLAGS;
use crate::support::cart::{Happening, Side, Stage, play};
use crate::support::{Client, Cluster, eventually_equals};
use crate::verify::pending_hints;

const LEFT: &[usize] = &[0, 1];
const RIGHT: &[usize] = &[2, 3, 4];
/// Keys that are asked for, each over a connection of its own.
const PROBES: usize = 20;

struct Broken<'a> {
    network: &'a Network,
    cluster: Cluster,
}

impl Stage for Broken<'_> {
    fn client(&mut self, side: Side) -> Client {
        self.cluster.client(match side {
            Side::Left => LEFT[1],
            Side::Client => RIGHT[0],
            Side::Right => RIGHT[1],
        })
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Breaks => {
                self.network.cut(LEFT, RIGHT);
                for (side, others) in [(LEFT, RIGHT), (RIGHT, LEFT)] {
                    for node in side {
                        let node = &self.cluster.nodes[*node];
                        eventually_equals("the other side is seen down", &others.len(), || node.sees_down());
                    }
                }
                self.wait_served();
            }
            Happening::Heals => {
                self.network.heal();
                self.cluster.wait_formed();
                eventually_equals("hints are handed over", &0, || pending_hints(&self.cluster));
            }
        }
    }
}

impl Broken<'_> {
    /// What was sent before every worker knew may still end in a time-out, and a client would repeat it. The example
    /// does not, so this waits until no worker of any node has to learn anything more.
    fn wait_served(&self) {
        for node in &self.cluster.nodes {
            eventually_equals("both sides serve", &PROBES, || {
                let is_served = |probe: &usize| {
                    let mut client = node.client();
                    client.run(&format!("VC.GET probe:{probe}")).error().is_empty()
                        && client.run(&format!("INCR probe:{probe}")).error().is_empty()
                };
                (0..PROBES).filter(is_served).count()
            });
        }
    }
}

#[test]
fn both_sides_of_a_partition_fill_one_cart_and_nothing_is_lost() {
    let Some(network) = Network::start(5) else { return };
    let cluster = network.cluster(FLAGS);
    play(&mut Broken { network: &network, cluster });
}
