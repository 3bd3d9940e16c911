//! What every engine must do: one suite, run on each.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that is wrong fails"
)]

mod common;

use common::{Disk, commit, contract, count, delete, expiring, in_db, set, version};
use gyre_storage::siblings::{Dot, PLAIN, Sibling, SiblingSet, VersionVector};
use gyre_storage::{Body, Cell, KeyRef, PREFIX_END, ReadBack, Record, Row, Store, UnixMillis, Version, View};

const NOW: UnixMillis = UnixMillis(1_000);

contract!(
    newest_row_wins_in_whatever_order_rows_arrive,
    rows_survive_reopening_without_the_cache,
    keys_that_are_prefixes_of_each_other_stay_apart,
    databases_stay_apart,
    counter_cells_merge_with_the_register,
    sibling_cells_join_and_yield_to_a_newer_register,
    sibling_cells_survive_reopening_and_compaction,
    many_old_versions_are_stepped_over,
    scan_gives_every_key_once_in_pages,
    scan_pages_end_on_prefix_borders_and_make_progress,
    scan_is_bounded_by_bytes,
    scan_without_values_keeps_versions_and_counters,
    scan_of_a_slot_gives_that_slots_keys,
    count_leaves_out_the_dead,
    horizon_hides_and_compaction_drops,
    rows_that_ask_are_read_back_as_they_are_then_shown,
    compaction_changes_no_record,
    expiry_index_gives_due_rows_in_order,
    documents_are_kept_apart_from_rows,
    empty_and_large_values_pass,
    empty_and_binary_keys_pass,
    second_opening_is_refused_or_sees_the_same,
);

fn read(store: &Store, key: &[u8]) -> Record {
    store.read(KeyRef::new(0, key)).unwrap()
}

fn value(store: &Store, key: &[u8]) -> Option<Vec<u8>> {
    let record = read(store, key);
    record.view(NOW).map(|view| match view {
        View::Bytes(bytes) => bytes.to_vec(),
        View::Integer(integer) => integer.to_string().into_bytes(),
    })
}

fn all_keys(store: &Store, keys_max: usize) -> Vec<(u8, Vec<u8>, Record)> {
    let (mut next, mut found, mut pages) = (Some(0), Vec::new(), 0);
    while let Some(from) = next {
        let page = store.scan(None, from, PREFIX_END, keys_max, 1 << 20, true).unwrap();
        assert!(page.next.is_none_or(|next| next > from), "a page makes progress");
        found.extend(page.entries);
        next = page.next;
        pages += 1;
        assert!(pages < 10_000);
    }
    found
}

fn newest_row_wins_in_whatever_order_rows_arrive(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"k", 5, b"five")]);
    commit(&store, &[set(b"k", 3, b"three")]);
    assert_eq!(value(&store, b"k").as_deref(), Some(&b"five"[..]));
    commit(&store, &[set(b"k", 9, b"nine"), set(b"k", 8, b"eight")]);
    commit(&store, &[set(b"k", 9, b"nine")]);
    assert_eq!(value(&store, b"k").as_deref(), Some(&b"nine"[..]));
    commit(&store, &[delete(b"k", 10)]);
    assert_eq!(value(&store, b"k"), None);
    assert_eq!(read(&store, b"k").base(), version(10, 1));
    assert!(read(&store, b"other").is_absent());
}

fn rows_survive_reopening_without_the_cache(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"a", 5, b"one"), set(b"b", 6, b"two")]);
    commit(&store, &[set(b"a", 4, b"late")]);
    drop(store);
    let store = disk.open_with(|options| options.row_cache_bytes = 0).unwrap();
    assert_eq!(value(&store, b"a").as_deref(), Some(&b"one"[..]));
    assert_eq!(value(&store, b"b").as_deref(), Some(&b"two"[..]));
    commit(&store, &[set(b"b", 7, b"three")]);
    assert_eq!(value(&store, b"b").as_deref(), Some(&b"three"[..]));
}

fn keys_that_are_prefixes_of_each_other_stay_apart(disk: &Disk) {
    let store = disk.open_with(|options| options.row_cache_bytes = 0).unwrap();
    let keys: Vec<Vec<u8>> = (0..40).map(|length| vec![b'a'; length]).collect();
    for (hlc, key) in keys.iter().enumerate() {
        commit(&store, &[set(key, hlc as u64 + 1, key)]);
    }
    for key in &keys {
        assert_eq!(value(&store, key).as_deref(), Some(&key[..]));
    }
}

fn databases_stay_apart(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[in_db(1, set(b"k", 1, b"one")), in_db(2, set(b"k", 2, b"two"))]);
    assert!(read(&store, b"k").is_absent());
    let one = store.read(KeyRef::new(1, b"k")).unwrap();
    assert_eq!(one.view(NOW), Some(View::Bytes(b"one")));
    let page = store.scan(Some(2), 0, PREFIX_END, 10, 1000, true).unwrap();
    assert_eq!(page.entries.len(), 1);
    assert_eq!(page.entries[0].0, 2);
    assert_eq!(store.count_keys(1, 0, PREFIX_END, NOW).unwrap(), 1);
    assert_eq!(store.count_keys(0, 0, PREFIX_END, NOW).unwrap(), 0);
}

fn counter_cells_merge_with_the_register(disk: &Disk) {
    for cache in [0, 8 << 20] {
        let store = disk.open_with(|options| options.row_cache_bytes = cache).unwrap();
        commit(&store, &[set(b"n", 5, b"10")]);
        commit(&store, &[count(b"n", 1, 6, version(5, 1), 3)]);
        commit(&store, &[count(b"n", 2, 7, version(5, 1), 4), count(b"n", 1, 8, version(5, 1), 5)]);
        assert_eq!(read(&store, b"n").view(NOW), Some(View::Integer(19)));
        commit(&store, &[count(b"only", 1, 6, Version::ZERO, 3)]);
        assert_eq!(read(&store, b"only").view(NOW), Some(View::Integer(3)));
        let scanned = all_keys(&store, 10);
        assert_eq!(scanned.len(), 2);
        for (_, key, record) in scanned {
            assert_eq!(record, read(&store, &key));
        }
    }
}

/// `values` as siblings of `actor`, of events up to `newest`, which has seen `seen`.
fn siblings<'a>(
    key: &'a [u8],
    actor: u64,
    hlc: u64,
    base: Version,
    seen: &[(u64, u64)],
    values: &[(u64, &'a [u8])],
) -> Row<'a> {
    let mut context = VersionVector::default();
    seen.iter().for_each(|&(actor, event)| context.see(Dot { event, actor }));
    let mut known = SiblingSet::default();
    known.discard(&context);
    for &(event, value) in values {
        known.put(Sibling::new(Dot { event, actor }, None, value));
    }
    let mut bytes = Vec::new();
    known.encode(&mut bytes);
    let body = Body::Siblings { base, set: Vec::leak(bytes) };
    Row { cell: Cell::Siblings { actor }, body, ..set(key, hlc, b"") }
}

fn shown(record: &Record) -> Vec<String> {
    let text = |view| match view {
        View::Bytes(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        View::Integer(number) => number.to_string(),
    };
    record.siblings(NOW).into_iter().map(|sibling| text(sibling.value)).collect()
}

fn sibling_cells_join_and_yield_to_a_newer_register(disk: &Disk) {
    for (cache, key) in [(0, &b"uncached"[..]), (8 << 20, b"cached")] {
        let store = disk.open_with(|options| options.row_cache_bytes = cache).unwrap();
        let base = version(5, 1);
        commit(&store, &[set(key, 5, b"plain")]);
        commit(&store, &[siblings(key, 1, 6, base, &[], &[(6, b"one")])]);
        assert_eq!(shown(&read(&store, key)), ["one", "plain"], "nobody has seen the plain value");
        commit(&store, &[siblings(key, 2, 7, base, &[(PLAIN, 5)], &[(7, b"two")])]);
        assert_eq!(shown(&read(&store, key)), ["two", "one"]);
        assert_eq!(value(&store, key).as_deref(), Some(&b"two"[..]), "a plain read shows the newest");
        assert_eq!(read(&store, key).sibling_cells().count(), 2);
        commit(&store, &[siblings(key, 1, 8, base, &[(PLAIN, 5), (1, 6), (2, 7)], &[(8, b"both")])]);
        assert_eq!(shown(&read(&store, key)), ["both"]);
        assert_eq!(read(&store, key).sibling_cells().count(), 1, "a cell that says nothing new is void");
        let newer = siblings(key, 3, 11, version(10, 1), &[], &[(11, b"newer")]);
        commit(&store, &[newer]);
        assert_eq!(shown(&read(&store, key)), ["newer"], "its register may still come");
        commit(&store, &[delete(key, 9)]);
        assert_eq!(shown(&read(&store, key)), ["newer"]);
        commit(&store, &[set(key, 12, b"again")]);
        assert_eq!(shown(&read(&store, key)), ["again"]);
        assert!(read(&store, key).is_plain());
    }
}

fn sibling_cells_survive_reopening_and_compaction(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[siblings(b"k", 1, 6, Version::ZERO, &[], &[(6, b"a")])]);
    commit(&store, &[siblings(b"k", 2, 7, Version::ZERO, &[], &[(7, b"b")])]);
    commit(&store, &[siblings(b"k", 1, 8, Version::ZERO, &[], &[(6, b"a"), (8, b"c")])]);
    let before = read(&store, b"k");
    assert_eq!(shown(&before), ["c", "b", "a"]);
    assert_eq!(store.count_keys(0, 0, PREFIX_END, NOW).unwrap(), 1);
    store.compact().unwrap();
    drop(store);
    let store = disk.open();
    assert_eq!(read(&store, b"k"), before);
    let page = store.scan(Some(0), 0, PREFIX_END, 10, 1 << 20, false).unwrap();
    assert_eq!(page.entries, [(0, b"k".to_vec(), before)]);
}

fn many_old_versions_are_stepped_over(disk: &Disk) {
    let store = disk.open_with(|options| options.row_cache_bytes = 0).unwrap();
    for hlc in 1..200 {
        commit(&store, &[set(b"k", hlc, hlc.to_string().as_bytes())]);
        commit(&store, &[count(b"k", 1, hlc, version(199, 1), hlc as i64)]);
        commit(&store, &[count(b"k", u64::MAX, hlc, version(199, 1), 1)]);
    }
    assert_eq!(read(&store, b"k").view(NOW), Some(View::Integer(199 + 199 + 1)));
    commit(&store, &[set(b"l", 1, b"x")]);
    assert_eq!(all_keys(&store, 1).len(), 2);
}

fn scan_gives_every_key_once_in_pages(disk: &Disk) {
    let store = disk.open();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for number in 0..500u64 {
        let key = format!("key:{number}").into_bytes();
        commit(&store, &[set(&key, number + 1, b"v"), set(&key, number + 2, b"w")]);
        expected.push(key);
    }
    expected.sort();
    for keys_max in [1, 7, 10_000] {
        let mut found: Vec<_> = all_keys(&store, keys_max).into_iter().map(|(_, key, _)| key).collect();
        found.sort();
        assert_eq!(found, expected, "in pages of {keys_max}");
    }
}

fn scan_pages_end_on_prefix_borders_and_make_progress(disk: &Disk) {
    let store = disk.open();
    // One key in sixteen databases is one prefix group.
    for db in 0..16 {
        commit(&store, &[in_db(db, set(b"k", 1, b"v"))]);
    }
    let page = store.scan(None, 0, PREFIX_END, 1, 1, true).unwrap();
    assert_eq!(page.entries.len(), 16);
    assert_eq!(page.next, None);
    let prefix = u64::from(KeyRef::new(0, b"k").prefix());
    assert!(store.scan(None, prefix + 1, PREFIX_END, 1, 1, true).unwrap().entries.is_empty());
    assert_eq!(store.scan(None, prefix, prefix + 1, 1, 1, true).unwrap().entries.len(), 16);
    assert!(store.scan(None, prefix, prefix, 1, 1, true).unwrap().entries.is_empty());
    assert!(store.scan(None, u64::MAX, u64::MAX, 1, 1, true).unwrap().entries.is_empty());
}

fn scan_is_bounded_by_bytes(disk: &Disk) {
    let store = disk.open();
    for number in 0..20u64 {
        commit(&store, &[set(format!("key:{number}").as_bytes(), number + 1, &[b'x'; 1000])]);
    }
    let page = store.scan(Some(0), 0, PREFIX_END, 1000, 2500, true).unwrap();
    assert_eq!(page.entries.len(), 3);
    assert!(page.next.is_some());
}

fn scan_without_values_keeps_versions_and_counters(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"a", 5, b"value"), expiring(b"b", 6, b"value", 7)]);
    commit(&store, &[set(b"n", 5, b"10"), count(b"n", 1, 6, version(5, 1), 3)]);
    let page = store.scan(Some(0), 0, PREFIX_END, 10, 1000, false).unwrap();
    assert_eq!(page.entries.len(), 3);
    for (_, key, record) in page.entries {
        assert_eq!(record.digest(), read(&store, &key).digest());
        match &key[..] {
            b"a" => assert_eq!(record.view(NOW), Some(View::Bytes(b""))),
            b"b" => assert_eq!(record.view(NOW), None),
            _ => assert_eq!(record.view(NOW), Some(View::Integer(13))),
        }
    }
}

fn scan_of_a_slot_gives_that_slots_keys(disk: &Disk) {
    let store = disk.open();
    for number in 0..50u64 {
        commit(&store, &[set(format!("{{tag}}{number}").as_bytes(), number + 1, b"v")]);
        commit(&store, &[set(format!("other{number}").as_bytes(), number + 1, b"v")]);
    }
    let slot = u64::from(KeyRef::new(0, b"{tag}").slot());
    let (from, end) = (slot << 18, (slot + 1) << 18);
    assert_eq!(store.count_keys(0, from, end, NOW).unwrap(), 50);
    let page = store.scan(Some(0), from, end, 1000, 1 << 20, true).unwrap();
    assert_eq!((page.entries.len(), page.next), (50, None));
}

fn count_leaves_out_the_dead(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"live", 1, b"v"), set(b"deleted", 1, b"v"), delete(b"deleted", 2)]);
    commit(&store, &[expiring(b"expired", 1, b"v", 1_000), expiring(b"lasting", 1, b"v", 1_001)]);
    commit(&store, &[count(b"counter", 1, 1, Version::ZERO, 0)]);
    assert_eq!(store.count_keys(0, 0, PREFIX_END, NOW).unwrap(), 3);
    assert_eq!(all_keys(&store, 10).len(), 5, "a scan gives the dead too");
}

fn horizon_hides_and_compaction_drops(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"old", 5, b"v"), set(b"new", 9, b"v"), count(b"new", 1, 5, Version::ZERO, 1)]);
    commit(&store, &[in_db(1, set(b"old", 5, b"v"))]);
    store.set_horizons(&[version(7, 0)]).unwrap();
    let check = |store: &Store| {
        assert_eq!(value(store, b"old"), None);
        assert_eq!(read(store, b"old").base(), version(7, 0));
        assert_eq!(value(store, b"new").as_deref(), Some(&b"v"[..]));
        assert!(!read(store, b"new").has_counters());
        assert_eq!(all_keys(store, 10).len(), 2, "only what the horizon leaves");
    };
    check(&store);
    drop(store);
    let store = disk.open();
    check(&store);
    store.compact().unwrap();
    check(&store);
    assert_eq!(store.stats().engine.rows_estimated, 2, "of four rows two are past their horizon");
    commit(&store, &[set(b"old", 6, b"late")]);
    check(&store);
}

/// What the rows that asked were told; what the memory did not know is read from disk.
fn read_back(store: &Store, rows: &[Row<'_>]) -> Vec<Record> {
    let mut batch = store.batch();
    rows.iter().for_each(|row| batch.push_asking(row));
    batch.push(&set(b"silent", 9, b"v"));
    store.commit(&mut batch).unwrap();
    let told = batch.take_read_back();
    assert!(batch.take_read_back().is_empty(), "it is told once");
    let record = |told| match told {
        ReadBack::Record(record) => record,
        ReadBack::Unknown { db, key } => store.read(KeyRef::new(db, &key)).unwrap(),
    };
    told.into_iter().map(record).collect()
}

fn rows_that_ask_are_read_back_as_they_are_then_shown(disk: &Disk) {
    for row_cache_bytes in [1 << 20, 0] {
        let store = disk.open_with(|options| options.row_cache_bytes = row_cache_bytes).unwrap();
        let rows = [set(b"a", 5, b"40"), count(b"a", 7, 6, version(5, 1), 2), in_db(1, set(b"b", 6, b"x"))];
        let records = read_back(&store, &rows);
        assert_eq!(records[1].view(NOW), Some(View::Integer(42)));
        assert_eq!(records[2], store.read(KeyRef::new(1, b"b")).unwrap());
    }
    let store = disk.open();
    store.set_horizons(&[version(8, 1)]).unwrap();
    let records = read_back(&store, &[set(b"a", 7, b"hidden"), set(b"c", 9, b"shown")]);
    assert_eq!((&records[0], records[0].view(NOW)), (&read(&store, b"a"), None));
    assert_eq!(records[1].view(NOW), Some(View::Bytes(b"shown")));
}

fn compaction_changes_no_record(disk: &Disk) {
    let store = disk.open_with(|options| options.row_cache_bytes = 0).unwrap();
    for hlc in 1..20u64 {
        commit(
            &store,
            &[set(b"a", hlc, b"v"), delete(b"b", hlc), count(b"c", hlc % 3, hlc, Version::ZERO, 1)],
        );
    }
    let before = all_keys(&store, 10);
    store.compact().unwrap();
    assert_eq!(all_keys(&store, 10), before);
    for (_, key, record) in &before {
        assert_eq!(&read(&store, key), record);
    }
    assert_eq!(store.stats().engine.rows_estimated, 5, "one row a cell");
}

fn expiry_index_gives_due_rows_in_order(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[expiring(b"late", 1, b"v", 3_000), expiring(b"first", 2, b"v", 500)]);
    commit(&store, &[expiring(b"second", 3, b"v", 1_000), set(b"never", 4, b"v")]);
    let due = |limit| {
        let due = store.expired(NOW, limit).unwrap();
        due.into_iter().map(|due| (due.expiry.0, due.key, due.version)).collect::<Vec<_>>()
    };
    let [first, second] =
        [(500, b"first".to_vec(), version(2, 1)), (1_000, b"second".to_vec(), version(3, 1))];
    assert_eq!(due(10), [first.clone(), second]);
    assert_eq!(due(1), [first]);
    assert_eq!(store.expired(UnixMillis(u64::MAX), 10).unwrap().len(), 3);
    assert!(store.expired(UnixMillis(0), 10).unwrap().is_empty());
}

fn documents_are_kept_apart_from_rows(disk: &Disk) {
    let store = disk.open();
    assert_eq!(store.meta_get("topology").unwrap(), None);
    store.meta_put("topology", b"one").unwrap();
    store.meta_put("topology", b"two").unwrap();
    store.meta_put("storage.format", b"a user's document").unwrap();
    drop(store);
    let store = disk.open();
    assert_eq!(store.meta_get("topology").unwrap().as_deref(), Some(&b"two"[..]));
    assert_eq!(store.meta_get("nothing").unwrap(), None);
    assert!(all_keys(&store, 10).is_empty());
}

fn empty_and_large_values_pass(disk: &Disk) {
    let store = disk.open();
    let large = vec![0xab; 20 << 20];
    commit(&store, &[set(b"empty", 1, b""), set(b"large", 2, &large)]);
    assert_eq!(value(&store, b"empty").as_deref(), Some(&b""[..]));
    assert!(value(&store, b"large").as_deref() == Some(&large));
    commit(&store, &[set(b"large", 3, b"small")]);
    assert_eq!(value(&store, b"large").as_deref(), Some(&b"small"[..]));
    commit(&store, &[set(b"large", 4, &large)]);
    assert!(value(&store, b"large").as_deref() == Some(&large));
}

fn empty_and_binary_keys_pass(disk: &Disk) {
    let store = disk.open_with(|options| options.row_cache_bytes = 0).unwrap();
    let long = vec![0xff; 70_000];
    for (hlc, key) in [&b""[..], b"\0", b"\xff", b"\xff\xff", b"\r\n", &long].into_iter().enumerate() {
        commit(&store, &[set(key, hlc as u64 + 1, b"v")]);
        assert_eq!(value(&store, key).as_deref(), Some(&b"v"[..]));
    }
    assert_eq!(all_keys(&store, 2).len(), 6);
}

fn second_opening_is_refused_or_sees_the_same(disk: &Disk) {
    let store = disk.open();
    commit(&store, &[set(b"k", 1, b"v")]);
    match (disk, disk.try_open()) {
        (Disk::Memory(_), second) => assert_eq!(value(&second.unwrap(), b"k").as_deref(), Some(&b"v"[..])),
        #[cfg(feature = "rocksdb")]
        (Disk::Rocks(dir), second) => {
            let error = second.unwrap_err();
            assert_eq!(error, gyre_storage::StorageError::InUse { dir: dir.path().to_path_buf() });
            assert!(error.to_string().contains("in use by another process"));
        }
    }
}
