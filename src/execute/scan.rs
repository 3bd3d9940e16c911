//! Going through the keys of the whole cluster: SCAN, KEYS, RANDOMKEY.
//!
//! Keys are visited in ring order, and a cursor is a position on the ring. Positions never change, so that a key
//! which is there during the whole scan is returned, whatever else comes and goes and whichever nodes are asked.

use gyre_protocol::{Reply, glob};
use gyre_storage::key::slot_of;

use crate::execute::context::KeysPage;
use crate::execute::options::{self, is};
use crate::execute::value::exists;
use crate::execute::{Answer, Arguments, CommandError, Context};

/// Behind the last position prefix.
const RING_END: u64 = 1 << 32;
/// Position prefixes in one slot.
const SLOT_WIDTH: u64 = 1 << 18;
/// What a page of SCAN looks at, at most, whatever COUNT says.
const SCAN_KEYS_MAX: usize = 10_000;
/// What KEYS asks for at a time.
const KEYS_PAGE: usize = 1_000;
/// Among how many neighbours RANDOMKEY chooses.
const RANDOM_PAGE: usize = 32;

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`.
pub async fn scan(cx: &Context, args: &Arguments) -> Answer {
    let cursor = options::parse_cursor(args.get(1))?;
    let options = options::parse_scan(args.from(2))?;
    let (start, end) = options.pattern.map_or((0, RING_END), range_of_pattern);
    let from = cursor.max(start);
    if from >= end {
        return Ok(page_reply(0, Vec::new()));
    }
    let page = cx.scan(cx.db(), from, end, options.count.min(SCAN_KEYS_MAX)).await?;
    let next = next_of(&page, from, end).unwrap_or(0);
    let wanted = options.type_name.is_none_or(|name| is(name, "string"));
    let keys = page.keys.into_iter().map(|(key, _)| key);
    let matching =
        keys.filter(|key| wanted && options.pattern.is_none_or(|pattern| glob::matches(pattern, key)));
    Ok(page_reply(next, matching.map(Reply::Bulk).collect()))
}

/// `KEYS pattern`.
pub async fn keys(cx: &Context, args: &Arguments) -> Answer {
    let pattern = args.get(1);
    if glob::is_literal(pattern) {
        let found = exists(cx, pattern).await?.then(|| Reply::bulk(pattern));
        return Ok(Reply::Array(found.into_iter().collect()));
    }
    let (start, end) = range_of_pattern(pattern);
    let mut found = Vec::new();
    let mut from = Some(start);
    while let Some(start) = from {
        let page = cx.scan(cx.db(), start, end, KEYS_PAGE).await?;
        from = next_of(&page, start, end);
        let keys = page.keys.into_iter().map(|(key, _)| key);
        found.extend(keys.filter(|key| glob::matches(pattern, key)).map(Reply::Bulk));
    }
    Ok(Reply::Array(found))
}

/// `RANDOMKEY`: one of the first keys behind a random position. Nearly uniform, since keys are spread evenly.
pub async fn randomkey(cx: &Context) -> Answer {
    let origin = rand::random_range(0..RING_END);
    let found = match random_of(cx, origin, RING_END).await? {
        Some(key) => Some(key),
        None => random_of(cx, 0, origin).await?,
    };
    Ok(found.map_or(Reply::Null, Reply::Bulk))
}

/// One of the first keys in a range of positions.
async fn random_of(cx: &Context, start: u64, end: u64) -> Result<Option<Vec<u8>>, CommandError> {
    let mut from = (start < end).then_some(start);
    while let Some(start) = from {
        let mut page = cx.scan(cx.db(), start, end, RANDOM_PAGE).await?;
        if !page.keys.is_empty() {
            let (key, _) = page.keys.swap_remove(rand::random_range(0..page.keys.len()));
            return Ok(Some(key));
        }
        from = next_of(&page, start, end);
    }
    Ok(None)
}

/// Where to go on after a page that began at `from`: always further on, and before `end`.
fn next_of(page: &KeysPage, from: u64, end: u64) -> Option<u64> {
    page.next.filter(|next| *next > from && *next < end)
}

/// The positions that keys matching `pattern` can have: one slot if the pattern spells a hash tag out, else all.
fn range_of_pattern(pattern: &[u8]) -> (u64, u64) {
    let Some(slot) = fixed_tag(pattern).map(slot_of) else { return (0, RING_END) };
    let start = u64::from(slot) * SLOT_WIDTH;
    (start, start + SLOT_WIDTH)
}

/// The hash tag of every key that matches `pattern`, if that is certain: no special character before its end.
fn fixed_tag(pattern: &[u8]) -> Option<&[u8]> {
    let open = pattern.iter().position(|byte| *byte == b'{')?;
    let inside = pattern.get(open + 1..)?;
    let close = inside.iter().position(|byte| *byte == b'}')?;
    let fixed = glob::is_literal(pattern.get(..open + 1 + close)?);
    inside.get(..close).filter(|tag| fixed && !tag.is_empty())
}

fn page_reply(cursor: u64, keys: Vec<Reply>) -> Reply {
    Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(keys)])
}

#[cfg(test)]
mod tests {
    use gyre_storage::KeyRef;

    use super::*;

    #[test]
    fn a_spelled_out_tag_narrows_the_scan_to_its_slot() {
        let (start, end) = range_of_pattern(b"x{user}*");
        assert_eq!(end - start, SLOT_WIDTH);
        for key in [&b"x{user}"[..], b"x{user}:1", b"x{user}{other}"] {
            assert!((start..end).contains(&u64::from(KeyRef::new(0, key).prefix())));
        }
        assert_eq!(range_of_pattern(&[b"{", &b"a"[..], b"}*"].concat()).1 % SLOT_WIDTH, 0);
    }

    #[test]
    fn other_patterns_go_through_all_slots() {
        for pattern in ["*", "{u*}x", "*{user}", "{}{a}*", "{user*", "user*", "x?{user}", "{us\\er}*"] {
            assert_eq!(range_of_pattern(pattern.as_bytes()), (0, RING_END), "{pattern}");
        }
    }

    #[test]
    fn a_scan_always_moves_on_and_ends_at_the_end() {
        let page = |next| KeysPage { keys: Vec::new(), next };
        assert_eq!(next_of(&page(Some(8)), 7, 10), Some(8));
        for next in [None, Some(7), Some(6), Some(10), Some(11)] {
            assert_eq!(next_of(&page(next), 7, 10), None, "{next:?}");
        }
    }
}
