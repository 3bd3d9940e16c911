//! Versioned entries: the facts of one node as others keep them.
//!
//! Only the node itself makes versions: it counts its changes within an incarnation, and each entry carries the number
//! of the change that made it. So "all up to version v" names exactly what someone has, and what they lack is every
//! entry of a greater version (scuttlebutt reconciliation: van Renesse, Dumitriu, Gough, Thomas, "Efficient
//! Reconciliation and Flow Control for Anti-Entropy Protocols", LADIS 2008).

use std::sync::Arc;

use super::about;
use crate::wire::{Malformed, Reader, put_varint, varint_bytes};

/// The most entries of one node, those included that a newer version of Gyre may add.
pub const ENTRIES_MAX: usize = 32;
/// The most bytes of an entry's value.
pub const ENTRY_BYTES_MAX: usize = 512;
/// The most bytes of all values of one node, so that they fit into one message.
pub const NODE_BYTES_MAX: usize = 2_048;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which fact.
    pub kind: u8,
    /// The change that made it; counts from 1.
    pub version: u64,
    /// The fact, encoded by its kind; at most [`ENTRY_BYTES_MAX`] bytes.
    pub value: Box<[u8]>,
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.kind);
        put_varint(out, self.version);
        put_varint(out, self.value.len() as u64);
        out.extend_from_slice(&self.value);
    }

    pub(super) fn encoded_bytes(&self) -> usize {
        1 + varint_bytes(self.version) + varint_bytes(self.value.len() as u64) + self.value.len()
    }

    /// Reads an entry; the value of a known kind is checked, that of an unknown one is taken as it is.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Entry, Malformed> {
        let (kind, version) = (reader.u8()?, reader.varint()?);
        let length = usize::try_from(reader.varint()?).map_err(|_| Malformed)?;
        if version == 0 || length > ENTRY_BYTES_MAX {
            return Err(Malformed);
        }
        let entry = Entry { kind, version, value: reader.bytes(length)?.into() };
        about::check(&entry)?;
        Ok(entry)
    }
}

/// The entries of one node within one incarnation.
///
/// Merging keeps the greater version of each kind: it commutes, associates and is idempotent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// The greatest version; 0 without entries.
    version: u64,
    /// Ascending by kind. Shared with the messages that carry all of it.
    list: Arc<[Entry]>,
}

impl Entries {
    /// The greatest version; 0 without entries.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All entries, ascending by kind.
    #[must_use]
    pub fn list(&self) -> &[Entry] {
        &self.list
    }

    /// The value of `kind`.
    #[must_use]
    pub fn value(&self, kind: u8) -> Option<&[u8]> {
        self.list.iter().find(|entry| entry.kind == kind).map(|entry| &*entry.value)
    }

    /// The entries of a version greater than `after`, ascending by kind.
    #[must_use]
    pub fn newer_than(&self, after: u64) -> Arc<[Entry]> {
        if after == 0 {
            return Arc::clone(&self.list);
        }
        self.list.iter().filter(|entry| entry.version > after).cloned().collect()
    }

    /// The node's own change: a new version with these values.
    pub(super) fn publish(&mut self, values: Vec<(u8, Vec<u8>)>) {
        let version = self.version + 1;
        let entries = values.into_iter().map(|(kind, value)| Entry { kind, version, value: value.into() });
        self.merge(&entries.collect());
    }

    /// Takes over entries, ascending by kind, of a greater version. Answers whether any changed that is news. Nothing
    /// happens if there would be too much of them.
    pub(super) fn merge(&mut self, entries: &Arc<[Entry]>) -> bool {
        if self.list.is_empty() && is_bounded(entries) {
            self.replace(Arc::clone(entries));
            return entries.iter().any(|entry| about::is_news(entry.kind));
        }
        // What has come by another way already is the rule when much is new.
        if entries.iter().all(|entry| self.list.contains(entry)) {
            return false;
        }
        let mut merged = self.list.to_vec();
        let mut is_news = false;
        for entry in entries.iter() {
            match merged.binary_search_by_key(&entry.kind, |known| known.kind) {
                Err(at) => {
                    is_news |= about::is_news(entry.kind);
                    merged.insert(at, entry.clone());
                }
                Ok(at) => {
                    let Some(known) = merged.get_mut(at) else { continue };
                    // Equal versions are equal, unless a node lied; then all agree on the greater value.
                    if (entry.version, &entry.value) > (known.version, &known.value) {
                        is_news |= about::is_news(entry.kind);
                        *known = entry.clone();
                    }
                }
            }
        }
        if !is_bounded(&merged) {
            return false;
        }
        self.replace(merged.into());
        is_news
    }

    fn replace(&mut self, list: Arc<[Entry]>) {
        self.version = list.iter().map(|entry| entry.version).max().unwrap_or(0);
        self.list = list;
    }
}

/// Whether one node may have these entries.
pub(super) fn is_bounded(entries: &[Entry]) -> bool {
    let bytes: usize = entries.iter().map(|entry| entry.value.len()).sum();
    entries.len() <= ENTRIES_MAX && bytes <= NODE_BYTES_MAX
}
