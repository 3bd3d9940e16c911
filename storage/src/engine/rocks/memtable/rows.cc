// The memtable of the rows (buckets.h) as RocksDB's MemTableRep.
//
// It is named "GyreRows" in option strings: "memtable_factory={id=GyreRows;buckets=8192}". Linking this file into a
// program makes it known there.

#include <algorithm>
#include <bit>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>

#include "buckets.h"
#include "memory/arena.h"
#include "rocksdb/utilities/object_registry.h"
#include "rocksdb/utilities/options_type.h"

namespace {

using gyre::Buckets;
using gyre::Node;
using rocksdb::Allocator;
using rocksdb::Arena;
using rocksdb::KeyHandle;
using rocksdb::MemTableRep;
using rocksdb::Slice;

constexpr size_t kBucketsDefault = 8192;
constexpr size_t kBucketsMax = size_t{1} << 24;

// Walks the buckets in their order, and each bucket's entries in theirs.
class RowsIterator final : public MemTableRep::Iterator {
 public:
  explicit RowsIterator(const Buckets* rows) : rows_(rows) {}

  bool Valid() const override { return node_ != nullptr; }
  const char* key() const override { return node_->Key(); }

  void Next() override { Settle(node_->next.load(std::memory_order_acquire)); }

  void Prev() override {
    const Slice now = rows_->KeyOf(node_);
    SettleBack(rows_->Before(bucket_, &now));
  }

  void Seek(const Slice& internal_key, const char* memtable_key) override {
    const Slice target = Target(internal_key, memtable_key);
    bucket_ = rows_->BucketOf(target);
    Settle(rows_->AtOrAfter(bucket_, target));
  }

  void SeekForPrev(const Slice& internal_key, const char* memtable_key) override {
    const Slice target = Target(internal_key, memtable_key);
    bucket_ = rows_->BucketOf(target);
    Node* const found = rows_->AtOrAfter(bucket_, target);
    if (rows_->IsAt(found, target)) {
      node_ = found;
    } else {
      SettleBack(rows_->Before(bucket_, &target));
    }
  }

  void SeekToFirst() override {
    bucket_ = 0;
    Settle(rows_->First(bucket_));
  }

  void SeekToLast() override {
    bucket_ = rows_->count() - 1;
    SettleBack(rows_->Last(bucket_));
  }

 private:
  Slice Target(const Slice& internal_key, const char* memtable_key) const {
    return memtable_key != nullptr ? rocksdb::GetLengthPrefixedSlice(memtable_key) : internal_key;
  }

  // At `node` of this bucket, or if there is none at the first of a later one.
  void Settle(Node* node) {
    while (node == nullptr && rows_->NextOccupied(&bucket_)) {
      node = rows_->First(bucket_);
    }
    node_ = node;
  }

  // At `node` of this bucket, or if there is none at the last of an earlier one.
  void SettleBack(Node* node) {
    while (node == nullptr && rows_->PreviousOccupied(&bucket_)) {
      node = rows_->Last(bucket_);
    }
    node_ = node;
  }

  const Buckets* rows_;
  size_t bucket_ = 0;
  Node* node_ = nullptr;
};

class RowsRep final : public MemTableRep {
 public:
  RowsRep(const KeyComparator& compare, Allocator* allocator, size_t buckets)
      : MemTableRep(allocator), rows_(compare, allocator, buckets) {}

  KeyHandle Allocate(const size_t len, char** buf) override { return *buf = rows_.Allocate(len); }

  void Insert(KeyHandle handle) override { rows_.Insert(static_cast<const char*>(handle)); }

  bool Contains(const char* key) const override {
    const Slice target = rocksdb::GetLengthPrefixedSlice(key);
    return rows_.IsAt(rows_.AtOrAfter(rows_.BucketOf(target), target), target);
  }

  size_t ApproximateMemoryUsage() override { return rows_.MemoryUsage(); }

  MemTableRep::Iterator* GetIterator(Arena* arena) override {
    if (arena == nullptr) {
      return new RowsIterator(&rows_);
    }
    return new (arena->AllocateAligned(sizeof(RowsIterator))) RowsIterator(&rows_);
  }

 private:
  Buckets rows_;
};

std::unordered_map<std::string, rocksdb::OptionTypeInfo> option_types = {
    {"buckets",
     {0, rocksdb::OptionType::kSizeT, rocksdb::OptionVerificationType::kNormal, rocksdb::OptionTypeFlags::kNone}},
};

class RowsFactory final : public rocksdb::MemTableRepFactory {
 public:
  RowsFactory() { RegisterOptions("GyreRowsOptions", &buckets_, &option_types); }

  static const char* kClassName() { return "GyreRows"; }
  const char* Name() const override { return kClassName(); }

  using rocksdb::MemTableRepFactory::CreateMemTableRep;
  MemTableRep* CreateMemTableRep(const MemTableRep::KeyComparator& compare, Allocator* allocator,
                                 const rocksdb::SliceTransform*, rocksdb::Logger*) override {
    return new RowsRep(compare, allocator, std::bit_ceil(std::clamp(buckets_, size_t{2}, kBucketsMax)));
  }

 private:
  size_t buckets_ = kBucketsDefault;
};

[[maybe_unused]] const auto& registered = rocksdb::ObjectLibrary::Default()->AddFactory<rocksdb::MemTableRepFactory>(
    RowsFactory::kClassName(),
    [](const std::string&, std::unique_ptr<rocksdb::MemTableRepFactory>* guard, std::string*) {
      guard->reset(new RowsFactory());
      return guard->get();
    });

}  // namespace
