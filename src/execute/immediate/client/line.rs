//! One line of `CLIENT LIST`, in the fields and the order of Redis 7.2.

use std::io::Write;
use std::sync::atomic::Ordering;

use gyre_protocol::Resp;
use gyre_storage::UnixMillis;

use crate::session::registry::ClientEntry;
use crate::session::settings::SessionSettings;

/// Appends the line of `entry`, without its line end. Buffer sizes, which live on the connection's worker, read 0.
pub fn write(
    out: &mut Vec<u8>,
    entry: &ClientEntry,
    settings: &SessionSettings,
    command: &str,
    now: UnixMillis,
) {
    let age = now.0.saturating_sub(entry.connected_at.0) / 1000;
    let idle = now.0.saturating_sub(entry.last_active_ms.load(Ordering::Relaxed)) / 1000;
    let ClientEntry { id, address, local_address, descriptor, .. } = entry;
    let resp = match settings.resp {
        Resp::Two => 2,
        Resp::Three => 3,
    };
    // Writing to a vector cannot fail; one expression keeps the order of the fields visible.
    let _infallible = write!(out, "id={id} addr={address} laddr={local_address} fd={descriptor} name=")
        .and_then(|()| out.write_all(&settings.name))
        .and_then(|()| write!(out, " age={age} idle={idle} flags={} db={}", flags(settings), settings.db))
        .and_then(|()| {
            out.write_all(b" sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0")
        })
        .and_then(|()| out.write_all(b" rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r"))
        .and_then(|()| write!(out, " cmd={command} user=default redir=-1 resp={resp} lib-name="))
        .and_then(|()| out.write_all(&settings.library_name))
        .and_then(|()| out.write_all(b" lib-ver="))
        .and_then(|()| out.write_all(&settings.library_version));
}

/// The letters of `flags=`: `r` read-only, `e` no-evict, `T` no-touch, `N` none of them.
fn flags(settings: &SessionSettings) -> String {
    let letters = [
        (settings.levels_before_readonly.is_some(), 'r'),
        (settings.no_evict, 'e'),
        (settings.no_touch, 'T'),
    ];
    let set: String = letters.iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execute::immediate::fixtures::{connect, settings};
    use crate::session::registry::ClientRegistry;

    #[test]
    fn a_line_has_the_fields_of_redis_7_2() {
        let clients = ClientRegistry::default();
        let mut own = settings();
        own.library_name = b"redis-py".to_vec();
        own.no_touch = true;
        let entry = connect(&clients, own.clone(), 5000);
        entry.last_active_ms.store(4_500, Ordering::Relaxed);
        let mut line = Vec::new();
        write(&mut line, &entry, &own, "client|list", UnixMillis(6_000));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "id=7 addr=10.0.0.1:5000 laddr=10.0.0.2:6379 fd=8 name= age=5 idle=1 flags=T db=0 sub=0 psub=0 ssub=0 \
             multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r \
             cmd=client|list user=default redir=-1 resp=2 lib-name=redis-py lib-ver="
        );
    }
}
