//! Whether a node has joined the ring, as it says itself.

use crate::status::Target;

/// Whether the node on `port` of this machine serves a ring of at least `nodes` nodes; if not, why.
pub(super) fn check(port: u16, nodes: usize) -> Result<(), String> {
    let target = Target { host: "127.0.0.1".into(), port, password: None };
    match target.ask(&["CLUSTER", "INFO"]) {
        Ok(answer) => {
            let text: String = redis::from_redis_value(answer).map_err(|error| error.to_string())?;
            is_formed(&text, nodes)
        }
        // A password or the like: it answers, and more cannot be known without the password.
        Err(error) if error.to_string().contains("NOAUTH") => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn is_formed(cluster_info: &str, nodes: usize) -> Result<(), String> {
    let field = |name: &str| {
        let mut pairs = cluster_info.lines().filter_map(|line| line.split_once(':'));
        pairs.find(|(field, _)| *field == name).map_or("", |(_, value)| value.trim())
    };
    let state = field("cluster_state");
    if state != "ok" {
        return Err(format!("cluster_state is '{state}'"));
    }
    let known: usize = field("cluster_known_nodes").parse().unwrap_or(0);
    if known < nodes {
        return Err(format!("it knows {known} of {nodes} nodes"));
    }
    // Slots without a live majority: its links to the others are still being made.
    let waiting = field("cluster_slots_pfail");
    if waiting == "0" { Ok(()) } else { Err(format!("{waiting} slots have no majority yet")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_formed_when_it_is_ok_and_knows_all_nodes() {
        let info = |state: &str, known: usize, pfail: usize| {
            format!("cluster_state:{state}\r\ncluster_slots_pfail:{pfail}\r\ncluster_known_nodes:{known}\r\n")
        };
        assert_eq!(is_formed(&info("ok", 3, 0), 3), Ok(()));
        assert_eq!(is_formed(&info("ok", 2, 0), 3), Err("it knows 2 of 3 nodes".into()));
        assert_eq!(is_formed(&info("ok", 3, 9), 3), Err("9 slots have no majority yet".into()));
        assert_eq!(is_formed(&info("fail", 3, 0), 3), Err("cluster_state is 'fail'".into()));
        assert!(is_formed("", 1).is_err());
    }
}
