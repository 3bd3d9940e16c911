//! Why a command failed, and the one place where that becomes RESP error text.

use std::borrow::Cow;

use gyre_cluster::modify::ModifyError;
use gyre_cluster::outcome::Failure;
use gyre_protocol::Reply;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq)]
pub enum CommandError {
    /// A text for the client, error code included, such as `ERR syntax error`.
    Text(Cow<'static, str>),
    /// A read-modify-write was refused by what it read.
    Modify(ModifyError),
    /// The cluster could not do it.
    Cluster(Failure),
}

impl CommandError {
    /// `ERR syntax error`.
    pub const SYNTAX: CommandError = CommandError::Text(Cow::Borrowed("ERR syntax error"));
    /// `ERR value is not an integer or out of range`.
    pub const NOT_AN_INTEGER: CommandError =
        CommandError::Text(Cow::Borrowed("ERR value is not an integer or out of range"));

    /// An error of constant text.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Text(Cow::Borrowed(text))
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        CommandError::Cluster(failure)
    }
}

impl From<ModifyError> for CommandError {
    fn from(error: ModifyError) -> Self {
        CommandError::Modify(error)
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        Reply::Error(match error {
            CommandError::Text(text) => text,
            CommandError::Modify(error) => Cow::Owned(error.to_string()),
            CommandError::Cluster(failure) => Cow::Owned(failure.to_string()),
        })
    }
}
