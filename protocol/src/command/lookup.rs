//! From a name to its row, in a few nanoseconds.
//!
//! A name of up to 16 letters is read as two overlapping words, which are folded to lower case by one `or` each. An
//! open-addressing table, built at compile time, maps them to the row.

use super::Command;
use crate::table;

/// Slots of the table: a power of two, sparse enough for probes of nearly always one step.
const SLOTS: usize = 512;

/// Bit 5 of every byte: set, it makes ASCII letters lower case, and nothing else a letter. (It makes a control character
/// a point, so names with a point are compared once more.)
const LOWER: u64 = 0x2020_2020_2020_2020;

/// A name of 1 to 16 letters, injective for each length.
#[derive(Clone, Copy)]
struct Folded {
    head: u64,
    tail: u64,
    length: usize,
}

impl Folded {
    #[inline]
    fn new(name: &[u8]) -> Option<Self> {
        let (head, tail) = match name.len() {
            8..=16 => (u64::from_le_bytes(*name.first_chunk()?), u64::from_le_bytes(*name.last_chunk()?)),
            4..=7 => (word32(*name.first_chunk()?), word32(*name.last_chunk()?)),
            2..=3 => (word16(*name.first_chunk()?), word16(*name.last_chunk()?)),
            _ => return None,
        };
        Some(Self { head: head | LOWER, tail: tail | LOWER, length: name.len() })
    }

    #[inline]
    const fn slot(self) -> usize {
        let mixed = (self.head.rotate_left(23) ^ self.tail).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 48) as usize ^ self.length) % SLOTS
    }
}

#[inline]
const fn word32(bytes: [u8; 4]) -> u64 {
    u32::from_le_bytes(bytes) as u64
}

#[inline]
const fn word16(bytes: [u8; 2]) -> u64 {
    u16::from_le_bytes(bytes) as u64
}

#[derive(Clone, Copy)]
struct Slot {
    folded: Folded,
    has_point: bool,
    command: &'static Command,
}

/// The command of that name, in any case. Subcommands: [`Command::subcommand`].
#[inline]
#[must_use]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    let wanted = Folded::new(name)?;
    let mut slot = wanted.slot();
    // The table is never full, so that an empty slot ends the search.
    while let Some(Some(Slot { folded, has_point, command })) = INDEX.get(slot) {
        if folded.head == wanted.head && folded.tail == wanted.tail && folded.length == wanted.length {
            let is_same = !has_point || name.eq_ignore_ascii_case(command.name.as_bytes());
            return is_same.then_some(*command);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

static INDEX: [Option<Slot>; SLOTS] = index();

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a bad index does not compile")]
const fn index() -> [Option<Slot>; SLOTS] {
    let mut index = [None; SLOTS];
    let mut group = 0;
    while group < table::GROUPS.len() {
        let commands: &'static [Command] = table::GROUPS[group];
        let mut row = 0;
        while row < commands.len() {
            let command = &commands[row];
            let folded = folded(command.name.as_bytes());
            let mut slot = folded.slot();
            while index[slot].is_some() {
                slot = (slot + 1) % SLOTS;
            }
            index[slot] = Some(Slot { folded, has_point: has_point(command.name.as_bytes()), command });
            row += 1;
        }
        group += 1;
    }
    index
}

#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a bad index does not compile")]
const fn has_point(name: &[u8]) -> bool {
    let mut at = 0;
    while at < name.len() {
        if name[at] == b'.' {
            return true;
        }
        at += 1;
    }
    false
}

/// [`Folded::new`] at compile time, for names of the table: lower-case letters and points only.
#[expect(clippy::indexing_slicing, reason = "evaluated at compile time, where a bad index does not compile")]
const fn folded(name: &[u8]) -> Folded {
    let length = name.len();
    assert!(length >= 2 && length <= 16, "names of commands have 2 to 16 letters");
    let width = if length >= 8 {
        8
    } else if length >= 4 {
        4
    } else {
        2
    };
    let (mut head, mut tail) = (0, 0);
    let mut at = 0;
    while at < length {
        let is_allowed = name[at].is_ascii_lowercase() || name[at] == b'.';
        assert!(is_allowed, "names of commands are lower-case letters and points");
        if at < width {
            head |= (name[at] as u64) << (8 * at);
        }
        if at >= length - width {
            tail |= (name[at] as u64) << (8 * (at + width - length));
        }
        at += 1;
    }
    Folded { head: head | LOWER, tail: tail | LOWER, length }
}

#[cfg(test)]
mod tests {
    use super::lookup;
    use crate::table;

    #[test]
    fn every_command_is_found_in_any_case() {
        for command in table::GROUPS.iter().copied().flatten() {
            let upper = command.name.to_ascii_uppercase();
            let mixed: String = command
                .name
                .char_indices()
                .map(|(i, c)| if i % 2 == 0 { c.to_ascii_uppercase() } else { c })
                .collect();
            for name in [command.name, &upper, &mixed] {
                assert_eq!(lookup(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
        }
    }

    #[test]
    fn what_only_resembles_a_command_is_not_found() {
        for name in [
            "",
            "g",
            "ge",
            "gets",
            "set\0",
            "\x13et",
            "SE\x14",
            "config|get",
            "nosuchcommandofthislength",
            "getx",
            "vc\x0eget",
            "vcxget",
        ] {
            assert!(lookup(name.as_bytes()).is_none(), "{name:?}");
        }
        for byte in 0..=u8::MAX {
            let name = [b'G', b'E', byte];
            assert_eq!(lookup(&name).is_some(), byte == b't' || byte == b'T', "{byte}");
        }
    }
}
