//! `CLUSTER COUNTKEYSINSLOT` and `GETKEYSINSLOT`: the keys of one slot, wherever they are, in the connection's
//! database.

use gyre_protocol::{Reply, integer};
use gyre_storage::{SLOTS, Slot};

use crate::execute::{Answer, Arguments, CommandError, Context};

/// Keys asked for at a time.
const PAGE_KEYS: usize = 1_000;
/// How far position prefixes, of 32 bits, reach below the 14 bits of the slot.
const SLOT_PREFIX_BITS: u32 = 18;

/// `CLUSTER COUNTKEYSINSLOT slot`.
pub async fn count_keys_in_slot(cx: &Context, args: &Arguments) -> Answer {
    let number = integer(args.get(2)).ok_or(CommandError::NOT_AN_INTEGER)?;
    let slot = slot(number).ok_or(CommandError::text("ERR Invalid slot"))?;
    let mut keys = 0;
    each_page(cx, slot, |page| {
        keys += page.len();
        true
    })
    .await?;
    Ok(Reply::count(keys))
}

/// `CLUSTER GETKEYSINSLOT slot count`.
pub async fn get_keys_in_slot(cx: &Context, args: &Arguments) -> Answer {
    let number = integer(args.get(2)).ok_or(CommandError::NOT_AN_INTEGER)?;
    let count = integer(args.get(3)).ok_or(CommandError::NOT_AN_INTEGER)?;
    let (Some(slot), Ok(count)) = (slot(number), usize::try_from(count)) else {
        return Err(CommandError::text("ERR Invalid slot or number of keys"));
    };
    let mut keys = Vec::new();
    each_page(cx, slot, |page| {
        let wanted = count - keys.len();
        keys.extend(page.into_iter().take(wanted).map(Reply::Bulk));
        keys.len() < count
    })
    .await?;
    Ok(Reply::Array(keys))
}

/// Hands the keys of `slot` to `take`, page by page, until it answers false.
async fn each_page(
    cx: &Context,
    slot: Slot,
    mut take: impl FnMut(Vec<Vec<u8>>) -> bool,
) -> Result<(), CommandError> {
    let (mut from, end) = prefixes(slot);
    loop {
        let page = cx.scan(cx.db(), from, end, PAGE_KEYS).await?;
        let goes_on = take(page.keys.into_iter().map(|(key, _)| key).collect());
        match page.next {
            Some(next) if goes_on && next > from && next < end => from = next,
            _ => return Ok(()),
        }
    }
}

/// The slot of that number.
fn slot(number: i64) -> Option<Slot> {
    Slot::try_from(number).ok().filter(|slot| *slot < SLOTS)
}

/// The position prefixes of `slot`: from the first to behind the last.
fn prefixes(slot: Slot) -> (u64, u64) {
    (u64::from(slot) << SLOT_PREFIX_BITS, (u64::from(slot) + 1) << SLOT_PREFIX_BITS)
}

#[cfg(test)]
mod tests {
    use gyre_storage::KeyRef;

    use super::*;

    #[test]
    fn a_slots_prefixes_hold_its_keys_and_no_others() {
        for key in [&b"a"[..], b"{tag}b", b"", b"some key"] {
            let placed = KeyRef::new(0, key);
            let inside =
                |slot: Slot| (prefixes(slot).0..prefixes(slot).1).contains(&u64::from(placed.prefix()));
            assert!((0..SLOTS).all(|slot| inside(slot) == (slot == placed.slot())));
        }
        assert_eq!(prefixes(SLOTS - 1).1, 1 << 32);
    }

    #[test]
    fn slots_are_0_to_16383() {
        assert_eq!((slot(0), slot(16383)), (Some(0), Some(16383)));
        assert_eq!((slot(-1), slot(16384), slot(70_000)), (None, None, None));
    }
}
