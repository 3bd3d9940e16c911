#!/usr/bin/env bash
# Prints the directory of a compiled RocksDB that belongs to this checkout, and compiles it first if there is none
# (about 15 minutes on two cores). The server's build links it: ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh) ROCKSDB_STATIC=1.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
# Of Cargo's settings, what comes before the environment: that is jemalloc's, not RocksDB's.
flags=$(sed '/^\[env\]/,$d' .cargo/config.toml)
key=$(echo "$flags" | cat scripts/rocksdb/Cargo.toml scripts/rocksdb/Cargo.lock - <(g++ --version | head -1) | sha256sum | cut -c1-16)
lib="$target/rocksdb/$key"
if [ ! -e "$lib/librocksdb.a" ]; then
  echo "compiling RocksDB (about 15 minutes on two cores, once) ..." >&2
  build="$target/rocksdb/build"
  # Whoever has set where a compiled one is would get that one again, and nothing to copy.
  (cd scripts/rocksdb && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC cargo build --release --locked --target-dir "$build") >&2
  built=$(find "$build" -name librocksdb.a -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)
  mkdir -p "$lib"
  cp "$built" "$lib/librocksdb.a.new"
  mv "$lib/librocksdb.a.new" "$lib/librocksdb.a"
  rm -rf "$build"
fi
echo "$lib"
