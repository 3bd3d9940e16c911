//! The command table: what each command is called, takes and touches.
//!
//! One static row per command and subcommand, in [`crate::table`]; [`resolve`] finds the row of a request and
//! checks its arity, [`introspect`] and [`docs`] answer `COMMAND` from the rows.

pub mod docs;
mod flags;
mod id;
pub mod introspect;
mod keys;
mod lookup;
mod resolve;
mod syntax;

pub use flags::{Categories, Flags, KeyFlags};
pub(crate) use flags::{categories, flags};
pub use id::CommandId;
pub use keys::KeySpec;
pub(crate) use keys::keys;
pub use lookup::lookup;
pub use resolve::resolve;

use crate::request::Args;

/// The chapter of the manual that a command belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Group {
    /// Bit fields of strings.
    Bitmap,
    /// The cluster as Redis Cluster clients see it.
    Cluster,
    /// The connection itself.
    Connection,
    /// Keys of any type.
    Generic,
    /// What Redis does not have.
    Gyre,
    /// Scripts and functions.
    Scripting,
    /// Operating a server.
    Server,
    /// Strings.
    String,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Cluster => "cluster",
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Gyre => "gyre",
            Self::Scripting => "scripting",
            Self::Server => "server",
            Self::String => "string",
        }
    }
}

/// Since when there is something better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecation {
    /// The version of Redis.
    pub since: &'static str,
    /// What to use instead.
    pub replaced_by: &'static str,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// What the code dispatches on.
    pub id: CommandId,
    /// In lower case; a subcommand with its container: `config|get`.
    pub name: &'static str,
    /// Number of arguments, the name (and the subcommand's) included; when negative, at least so many.
    pub arity: isize,
    /// What it is.
    pub flags: Flags,
    /// Its ACL categories.
    pub categories: Categories,
    /// Hints for proxies and cluster clients (`request_policy:…`).
    pub tips: &'static [&'static str],
    /// Which arguments are keys.
    pub keys: &'static [KeySpec],
    /// Its chapter.
    pub group: Group,
    /// The version of Redis that had it first; for Gyre's own commands Gyre's version.
    pub since: &'static str,
    /// One line.
    pub summary: &'static str,
    /// In the size of what.
    pub complexity: &'static str,
    /// Whether there is something better.
    pub deprecated: Option<Deprecation>,
    /// What it takes, in the notation of [`docs`].
    pub arguments: &'static str,
    /// Its subcommands, for a container.
    pub subcommands: &'static [Command],
}

/// What rows leave out.
pub(crate) const ROW: Command = Command {
    id: CommandId::Ping,
    name: "",
    arity: 0,
    flags: Flags::NONE,
    categories: Categories::NONE,
    tips: &[],
    keys: &[],
    group: Group::Generic,
    since: "",
    summary: "",
    complexity: "",
    deprecated: None,
    arguments: "",
    subcommands: &[],
};

impl Command {
    /// Whether it may change data.
    #[inline]
    #[must_use]
    pub const fn is_write(&self) -> bool {
        self.flags.contains(Flags::WRITE)
    }

    /// Whether a request of so many arguments, the name included, has the right number.
    #[inline]
    #[must_use]
    pub const fn accepts(&self, arguments: usize) -> bool {
        let exact = self.arity.unsigned_abs();
        if self.arity < 0 { arguments >= exact } else { arguments == exact }
    }

    /// The name without its container's: `get` of `config|get`.
    #[must_use]
    pub fn short_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, name)| name)
    }

    /// The subcommand of that name, in any case.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands.iter().find(|command| command.short_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Indexes of the arguments that are keys, with what the command does to each.
    pub fn keys(&self, args: Args<'_>) -> impl Iterator<Item = (usize, KeyFlags)> + use<> {
        let arguments = args.len();
        self.keys.iter().flat_map(move |spec| spec.indexes(arguments).map(move |index| (index, spec.flags)))
    }
}
