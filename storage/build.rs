//! Compiles the memtable of the rows against the headers of RocksDB, which `librocksdb-sys` brings.

fn main() {
    #[cfg(feature = "rocksdb")]
    memtable();
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "rocksdb")]
fn memtable() {
    const SOURCES: &str = "src/engine/rocks/memtable";
    println!("cargo::rerun-if-changed={SOURCES}");
    let headers = std::env::var("DEP_ROCKSDB_CARGO_MANIFEST_DIR").expect("librocksdb-sys says where it is");
    let headers = std::path::Path::new(&headers).join("rocksdb");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .file(format!("{SOURCES}/rows.cc"))
        .include(headers.join("include"))
        .include(headers)
        // As librocksdb-sys compiles the rest, as far as headers ask.
        .define("NDEBUG", None)
        .define("OS_LINUX", None)
        .define("ROCKSDB_PLATFORM_POSIX", None)
        .define("ROCKSDB_LIB_IO_POSIX", None)
        .define("HAVE_ALIGNED_NEW", None)
        .define("HAVE_UINT128_EXTENSION", None)
        .flag_if_supported("-Wno-unused-parameter")
        .cargo_metadata(false)
        .compile("gyre_memtable");
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    println!("cargo::rustc-link-search=native={out}");
    // It registers itself when the program starts: nothing refers to it.
    println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=gyre_memtable");
}
