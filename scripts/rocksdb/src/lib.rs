//! Only here to have RocksDB compiled; see Cargo.toml.
