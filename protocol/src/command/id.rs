//! What the code dispatches on: one number for each command and subcommand.

use std::sync::LazyLock;

use super::Command;
use crate::table;

/// Declares the numbers and the list of them.
macro_rules! command_ids {
    ($($id:ident,)+) => {
        /// A command, or a subcommand with its container's name first (`ConfigGet`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "the row of the table says what a command is")]
        pub enum CommandId {
            $($id,)+
        }

        impl CommandId {
            /// All of them, in order of [`CommandId::index`].
            pub const ALL: &'static [Self] = &[$(Self::$id,)+];
        }
    };
}

impl CommandId {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// A small number, below [`CommandId::COUNT`]: for arrays of counters.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The row of the table.
    #[must_use]
    pub fn command(self) -> &'static Command {
        static ROWS: LazyLock<Vec<&'static Command>> = LazyLock::new(|| {
            let mut rows: Vec<&'static Command> = all().collect();
            rows.sort_by_key(|command| command.id);
            rows
        });
        ROWS.get(self.index()).expect("every id has exactly one row (tested)")
    }
}

/// Every command and, behind its container, every subcommand.
pub(crate) fn all() -> impl Iterator<Item = &'static Command> {
    top_level().flat_map(|command| std::iter::once(command).chain(command.subcommands))
}

/// Every command without the subcommands.
pub(crate) fn top_level() -> impl Iterator<Item = &'static Command> {
    table::GROUPS.into_iter().flatten()
}

command_ids! {
    Ping,
    Echo,
    Hello,
    Auth,
    Quit,
    Reset,
    Select,
    Client,
    ClientId,
    ClientInfo,
    ClientList,
    ClientSetname,
    ClientGetname,
    ClientSetinfo,
    ClientKill,
    ClientReply,
    ClientNoEvict,
    ClientNoTouch,
    ClientHelp,
    Consistency,
    Readonly,
    Readwrite,
    Asking,
    Info,
    Config,
    ConfigGet,
    ConfigSet,
    ConfigResetstat,
    ConfigRewrite,
    ConfigHelp,
    Dbsize,
    Time,
    Flushall,
    Flushdb,
    Debug,
    Memory,
    MemoryUsage,
    MemoryHelp,
    Slowlog,
    SlowlogGet,
    SlowlogLen,
    SlowlogReset,
    SlowlogHelp,
    Latency,
    LatencyLatest,
    LatencyHistory,
    LatencyReset,
    LatencyDoctor,
    LatencyGraph,
    LatencyHistogram,
    LatencyHelp,
    Command,
    CommandCount,
    CommandInfo,
    CommandDocs,
    CommandList,
    CommandGetkeys,
    CommandGetkeysandflags,
    CommandHelp,
    Del,
    Unlink,
    Exists,
    Type,
    Touch,
    Rename,
    Renamenx,
    Copy,
    Move,
    Randomkey,
    Keys,
    Scan,
    Object,
    ObjectEncoding,
    ObjectFreq,
    ObjectIdletime,
    ObjectRefcount,
    ObjectHelp,
    Wait,
    Waitaof,
    Expire,
    Pexpire,
    Expireat,
    Pexpireat,
    Expiretime,
    Pexpiretime,
    Ttl,
    Pttl,
    Persist,
    Get,
    Set,
    Setnx,
    Setex,
    Psetex,
    Getset,
    Getdel,
    Getex,
    Mget,
    Mset,
    Msetnx,
    Append,
    Strlen,
    Setrange,
    Getrange,
    Substr,
    Lcs,
    Incr,
    Incrby,
    Decr,
    Decrby,
    Incrbyfloat,
    Setbit,
    Getbit,
    Bitcount,
    Bitpos,
    Bitop,
    Cluster,
    ClusterInfo,
    ClusterNodes,
    ClusterSlots,
    ClusterShards,
    ClusterMyid,
    ClusterMyshardid,
    ClusterKeyslot,
    ClusterCountkeysinslot,
    ClusterGetkeysinslot,
    ClusterLinks,
    ClusterCountFailureReports,
    ClusterReplicas,
    ClusterHelp,
    Gyre,
    GyreStatus,
    GyreRing,
    GyreReplicas,
    GyreHints,
    GyreRepair,
    GyreHelp,
    VcGet,
    VcSet,
    VcDel,
    Function,
    FunctionFlush,
    FunctionList,
    FunctionStats,
    FunctionHelp,
    Script,
    ScriptFlush,
    ScriptExists,
    ScriptHelp,
}

#[cfg(test)]
mod tests {
    use super::{CommandId, all};

    #[test]
    fn every_id_has_exactly_one_row_and_every_row_its_own_id() {
        assert_eq!(all().count(), CommandId::COUNT);
        for (index, id) in CommandId::ALL.iter().enumerate() {
            assert_eq!((id.index(), id.command().id), (index, *id));
        }
    }

    #[test]
    fn a_subcommand_is_named_after_its_container() {
        for command in all() {
            for subcommand in command.subcommands {
                assert_eq!(subcommand.name, format!("{}|{}", command.name, subcommand.short_name()));
            }
        }
    }
}
