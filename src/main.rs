fn main() { println!("{}", rocksdb::DB::list_cf(&rocksdb::Options::default(), "/nonexistent").is_err()); }
