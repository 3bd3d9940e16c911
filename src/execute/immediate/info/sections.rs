//! Which sections of `INFO` a client asks for.

use gyre_protocol::Args;

use crate::execute::immediate::words::is;

/// One section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// The process and its version.
    Server,
    /// Gyre's own: the node in its cluster.
    Gyre,
    /// Client connections.
    Clients,
    /// Memory.
    Memory,
    /// Loading and durability.
    Persistence,
    /// Sums over all commands.
    Stats,
    /// What Redis says of replication.
    Replication,
    /// Processor time.
    Cpu,
    /// Modules: none.
    Modules,
    /// Calls by command.
    Commandstats,
    /// Error replies by code.
    Errorstats,
    /// Latency percentiles by command.
    Latencystats,
    /// Whether clients should take this for Redis Cluster.
    Cluster,
    /// What is stored.
    Keyspace,
}

/// All sections in the order of the text, by the names that clients use, and whether they come unasked.
const SECTIONS: [(Section, &str, bool); 14] = [
    (Section::Server, "server", true),
    (Section::Gyre, "gyre", true),
    (Section::Clients, "clients", true),
    (Section::Memory, "memory", true),
    (Section::Persistence, "persistence", true),
    (Section::Stats, "stats", true),
    (Section::Replication, "replication", true),
    (Section::Cpu, "cpu", true),
    (Section::Modules, "modules", true),
    (Section::Commandstats, "commandstats", false),
    (Section::Errorstats, "errorstats", true),
    (Section::Latencystats, "latencystats", false),
    (Section::Cluster, "cluster", true),
    (Section::Keyspace, "keyspace", true),
];

/// The sections that the arguments behind `INFO` name, each once, in the order of the text. Unknown names name none.
pub fn chosen(names: Args<'_>) -> Vec<Section> {
    let has = |name: &str| names.iter().any(|given| is(given, name));
    let (all, default) = (has("all") || has("everything"), names.is_empty() || has("default"));
    let wanted = SECTIONS.iter().filter(|(_, name, is_default)| all || (default && *is_default) || has(name));
    wanted.map(|(section, _, _)| *section).collect()
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;

    fn of(names: &str) -> Vec<Section> {
        chosen(names.split_whitespace().collect::<OwnedArgs>().args())
    }

    #[test]
    fn sections_come_once_and_in_order() {
        assert_eq!(of("memory SERVER memory"), [Section::Server, Section::Memory]);
        assert_eq!(of("nosuch"), []);
        assert_eq!(of("all").len(), SECTIONS.len());
        assert_eq!(of("everything"), of("all"));
    }

    #[test]
    fn statistics_by_command_come_only_when_asked_for() {
        let default = of("");
        assert_eq!(default, of("default"));
        assert!(!default.contains(&Section::Commandstats) && default.contains(&Section::Keyspace));
        assert!(of("default commandstats").contains(&Section::Commandstats));
    }
}
