//! Better words for what Redis has and Gyre does not: where its users look instead.

use gyre_protocol::{Args, Reply};

use crate::execute::immediate::words::is;

const NO_MANAGEMENT: &str = "ERR CLUSTER slots and members are not managed by hand: nodes started with the same --seeds \
                             form one ring, which decides who holds a slot; see GYRE STATUS and GYRE RING";
const NO_FAILOVER: &str = "ERR there is no failover: every replica of a key takes reads and writes";
const NO_PAUSE: &str =
    "ERR CLIENT PAUSE is not supported: it would pause one node and leave the others running";
const NO_TRACKING: &str = "ERR CLIENT TRACKING is not supported by this version of Gyre";
const NO_MAINTENANCE: &str = "ERR CLIENT MAINT_NOTIFICATIONS is not supported by this version of Gyre";
const NO_SCRIPTS: &str = "ERR this version of Gyre runs no scripts or functions";

/// Container, subcommand, and what to say.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("CLIENT", "MAINT_NOTIFICATIONS", NO_MAINTENANCE),
    ("CLIENT", "PAUSE", NO_PAUSE),
    ("CLIENT", "TRACKING", NO_TRACKING),
    ("CLUSTER", "ADDSLOTS", NO_MANAGEMENT),
    ("CLUSTER", "ADDSLOTSRANGE", NO_MANAGEMENT),
    ("CLUSTER", "BUMPEPOCH", NO_MANAGEMENT),
    ("CLUSTER", "DELSLOTS", NO_MANAGEMENT),
    ("CLUSTER", "DELSLOTSRANGE", NO_MANAGEMENT),
    ("CLUSTER", "FAILOVER", NO_FAILOVER),
    ("CLUSTER", "FLUSHSLOTS", NO_MANAGEMENT),
    ("CLUSTER", "FORGET", NO_MANAGEMENT),
    ("CLUSTER", "MEET", NO_MANAGEMENT),
    ("CLUSTER", "REPLICATE", NO_FAILOVER),
    ("CLUSTER", "RESET", NO_MANAGEMENT),
    ("CLUSTER", "SAVECONFIG", NO_MANAGEMENT),
    ("CLUSTER", "SET-CONFIG-EPOCH", NO_MANAGEMENT),
    ("CLUSTER", "SETSLOT", NO_MANAGEMENT),
    ("FUNCTION", "LOAD", NO_SCRIPTS),
    ("FUNCTION", "RESTORE", NO_SCRIPTS),
    ("SCRIPT", "LOAD", NO_SCRIPTS),
];

/// What to answer to a request that names no command of the table, if there is more to say than that it is unknown.
pub fn explain(args: Args<'_>) -> Option<Reply> {
    let (container, subcommand) = (args.arg(0), args.arg(1));
    let found = REFUSALS.iter().find(|(first, second, _)| is(container, first) && is(subcommand, second));
    found.map(|(_, _, text)| Reply::error(*text))
}

#[cfg(test)]
mod tests {
    use gyre_protocol::{OwnedArgs, command};

    use super::*;

    #[test]
    fn only_what_the_table_lacks_is_explained() {
        for (container, subcommand, text) in REFUSALS {
            let args: OwnedArgs = [container, subcommand].into_iter().collect();
            assert!(command::lookup(container.as_bytes()).is_some(), "{container}");
            let refused = command::resolve(args.args()).unwrap_err();
            assert!(format!("{refused:?}").contains("unknown subcommand"), "{container} {subcommand}");
            assert_eq!(explain(args.args()), Some(Reply::error(*text)));
        }
    }

    #[test]
    fn a_plainly_unknown_subcommand_is_left_to_the_table() {
        let args: OwnedArgs = ["CLUSTER", "FOO"].into_iter().collect();
        assert_eq!(explain(args.args()), None);
    }
}
