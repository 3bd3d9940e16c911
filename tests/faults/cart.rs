//! The shopping cart: two sides of a broken network put different things into it, and nothing is lost.

use crate::network::Network;
use crate::processes::FLAGS;
use crate::support::cart::{Happening, Side, Stage, play};
use crate::support::{Client, Cluster, eventually_equals};
use crate::verify::pending_hints;

const LEFT: &[usize] = &[0, 1];
const RIGHT: &[usize] = &[2, 3, 4];

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
            }
            Happening::Heals => {
                self.network.heal();
                self.cluster.wait_formed();
                eventually_equals("hints are handed over", &0, || pending_hints(&self.cluster));
            }
        }
    }
}

#[test]
fn both_sides_of_a_partition_fill_one_cart_and_nothing_is_lost() {
    let Some(network) = Network::start(5) else { return };
    let cluster = network.cluster(FLAGS);
    play(&mut Broken { network: &network, cluster });
}
