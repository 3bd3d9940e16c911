//! Which connections `CLIENT LIST` shows and `CLIENT KILL` ends.

use gyre_protocol::{Args, integer};

use crate::execute::CommandError;
use crate::execute::immediate::words::{is, one_of, refusal, shown};
use crate::session::registry::ClientEntry;

/// The kinds of client Redis knows. All connections here are normal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sends commands.
    Normal,
    /// Receives a replication stream.
    Replica,
    /// Sends a replication stream.
    Master,
    /// Has subscriptions.
    Pubsub,
}

impl Kind {
    /// The kind that `name` names.
    pub fn parse(name: &[u8]) -> Result<Kind, CommandError> {
        match () {
            () if is(name, "normal") => Ok(Kind::Normal),
            () if is(name, "replica") || is(name, "slave") => Ok(Kind::Replica),
            () if is(name, "master") => Ok(Kind::Master),
            () if is(name, "pubsub") => Ok(Kind::Pubsub),
            () => Err(refusal(format!("ERR Unknown client type '{}'", shown(name)))),
        }
    }
}

/// What `CLIENT LIST` was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    /// Every connection.
    All,
    /// Those of one kind.
    Kind(Kind),
    /// Those of these ids.
    Ids(Vec<i64>),
}

impl Listed {
    /// The arguments behind `CLIENT LIST`.
    pub fn parse(args: Args<'_>) -> Result<Listed, CommandError> {
        match (args.len(), args.arg(2)) {
            (2, _) => Ok(Listed::All),
            (4, option) if is(option, "TYPE") => Ok(Listed::Kind(Kind::parse(args.arg(3))?)),
            (4.., option) if is(option, "ID") => {
                let ids = args
                    .from(3)
                    .iter()
                    .map(|id| integer(id).ok_or(CommandError::text("ERR Invalid client ID")));
                Ok(Listed::Ids(ids.collect::<Result<_, _>>()?))
            }
            _ => Err(CommandError::SYNTAX),
        }
    }

    /// Whether `entry` is asked for.
    pub fn includes(&self, entry: &ClientEntry) -> bool {
        match self {
            Listed::All => true,
            Listed::Kind(kind) => *kind == Kind::Normal,
            Listed::Ids(ids) => i64::try_from(entry.id).is_ok_and(|id| ids.contains(&id)),
        }
    }
}

/// What `CLIENT KILL` was asked to end: the connections that meet every condition given.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    /// `CLIENT KILL ip:port`, which answers differently.
    pub is_old_form: bool,
    id: Option<i64>,
    kind: Option<Kind>,
    address: Option<Vec<u8>>,
    local_address: Option<Vec<u8>>,
    skip_me: bool,
}

impl Filter {
    /// The arguments behind `CLIENT KILL`.
    pub fn parse(args: Args<'_>) -> Result<Filter, CommandError> {
        let mut filter = Filter {
            is_old_form: false,
            id: None,
            kind: None,
            address: None,
            local_address: None,
            skip_me: true,
        };
        if args.len() == 3 {
            let address = Some(args.arg(2).to_vec());
            return Ok(Filter { is_old_form: true, skip_me: false, address, ..filter });
        }
        let mut options = args.from(2).into_iter();
        while let Some(option) = options.next() {
            filter.option(option, options.next().ok_or(CommandError::SYNTAX)?)?;
        }
        Ok(filter)
    }

    fn option(&mut self, option: &[u8], value: &[u8]) -> Result<(), CommandError> {
        match () {
            () if is(option, "ID") => {
                let id = integer(value).filter(|id| *id > 0);
                self.id = Some(id.ok_or(CommandError::text("ERR client-id should be greater than 0"))?);
            }
            () if is(option, "TYPE") => self.kind = Some(Kind::parse(value)?),
            () if is(option, "ADDR") => self.address = Some(value.to_vec()),
            () if is(option, "LADDR") => self.local_address = Some(value.to_vec()),
            () if is(option, "USER") && value != b"default" => {
                return Err(refusal(format!("ERR No such user '{}'", shown(value))));
            }
            () if is(option, "USER") => {}
            () if is(option, "SKIPME") => self.skip_me = one_of(value, "yes", "no")?,
            () => return Err(CommandError::SYNTAX),
        }
        Ok(())
    }

    /// Whether `entry` is to be ended by the connection of id `own`.
    pub fn includes(&self, entry: &ClientEntry, own: u64) -> bool {
        let is = |wanted: &Option<Vec<u8>>, address: std::net::SocketAddr| {
            wanted.as_ref().is_none_or(|wanted| address.to_string().as_bytes() == wanted.as_slice())
        };
        !(self.skip_me && entry.id == own)
            && self.id.is_none_or(|id| u64::try_from(id) == Ok(entry.id))
            && self.kind.is_none_or(|kind| kind == Kind::Normal)
            && is(&self.address, entry.address)
            && is(&self.local_address, entry.local_address)
    }
}

#[cfg(test)]
mod tests {
    use gyre_protocol::OwnedArgs;

    use super::*;

    fn refused(line: &str) -> String {
        let args: OwnedArgs = line.split_whitespace().collect();
        let error = match line.contains("LIST") {
            true => Listed::parse(args.args()).unwrap_err(),
            false => Filter::parse(args.args()).unwrap_err(),
        };
        match error {
            CommandError::Text(text) => text.into_owned(),
            other => panic!("not a text: {other:?}"),
        }
    }

    #[test]
    fn wrong_options_are_refused_in_the_words_of_redis() {
        for (line, text) in [
            ("CLIENT LIST TYPE foo", "ERR Unknown client type 'foo'"),
            ("CLIENT LIST ID a", "ERR Invalid client ID"),
            ("CLIENT LIST ID", "ERR syntax error"),
            ("CLIENT LIST foo", "ERR syntax error"),
            ("CLIENT KILL ID a", "ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
            ("CLIENT KILL TYPE foo", "ERR Unknown client type 'foo'"),
            ("CLIENT KILL FOO bar", "ERR syntax error"),
            ("CLIENT KILL USER foo", "ERR No such user 'foo'"),
            ("CLIENT KILL SKIPME maybe", "ERR syntax error"),
            ("CLIENT KILL ID 1 ADDR", "ERR syntax error"),
        ] {
            assert_eq!(refused(line), text, "{line}");
        }
    }

    #[test]
    fn a_kind_has_its_old_and_its_new_name() {
        assert_eq!(Kind::parse(b"Normal"), Ok(Kind::Normal));
        assert_eq!((Kind::parse(b"slave"), Kind::parse(b"REPLICA")), (Ok(Kind::Replica), Ok(Kind::Replica)));
    }

    #[test]
    fn list_understands_its_forms() {
        let parse = |line: &str| Listed::parse(line.split_whitespace().collect::<OwnedArgs>().args());
        assert_eq!(parse("CLIENT LIST"), Ok(Listed::All));
        assert_eq!(parse("CLIENT LIST type pubsub"), Ok(Listed::Kind(Kind::Pubsub)));
        assert_eq!(parse("CLIENT LIST id 1 2 3"), Ok(Listed::Ids(vec![1, 2, 3])));
    }
}
