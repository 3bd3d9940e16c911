// The memtable of the rows: sorted lists in buckets, by the position that every row's key begins with.
//
// RocksDB's own memtable is a skip list. An insert of a random key compares some twenty entries there, and waits for
// memory at half of them: it was the dearest part of a write. But the keys of rows begin with 32 bits that are spread
// evenly, a slot and a hash (storage/src/encode.rs). The first of them choose a bucket here, which holds an entry or
// two: the same order as a skip list has, so that flushes and scans walk on from one bucket to the next, found like in
// a hash table.
//
// Where keys do share their first bits (all in one slot, or the many rows of one key) a list would grow long. One that is
// found to have more than kListMax entries becomes a skip list with a tower of its own (Pugh, "Skip Lists: A Probabilistic
// Alternative to Balanced Trees", 1990), which later entries join. So an insert costs O(log n) at worst.
//
// There is one writer at a time, which RocksDB sees to (allow_concurrent_memtable_write=false): with inserts as short as
// these, sharing them out takes longer. Readers take no locks: nothing is ever removed, an entry is complete before the
// link to it is, and on the lowest level before on higher ones.
//
// It is named "GyreRows" in option strings: "memtable_factory={id=GyreRows;buckets=8192}". Including this file in a
// program makes it known there.

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>

#include "memory/arena.h"
#include "rocksdb/memtablerep.h"
#include "rocksdb/utilities/object_registry.h"
#include "rocksdb/utilities/options_type.h"
#include "util/random.h"

namespace {

using rocksdb::Allocator;
using rocksdb::Arena;
using rocksdb::KeyHandle;
using rocksdb::MemTableRep;
using rocksdb::Slice;

// A list of more entries gets a tower.
constexpr int kListMax = 16;
// Whoever is put at the front of a list does not see how long it is: one entry in kBranching^2, which has as many levels
// as this, looks.
constexpr int kLookingLevels = 3;
// Levels of a tower: enough for kBranching^12 entries.
constexpr int kLevels = 12;
// One of so many entries of a level is in the next, too.
constexpr uint32_t kBranching = 4;
// Bits of the position: what a bucket can be chosen by.
constexpr int kPositionBits = 32;
constexpr size_t kBucketsDefault = 8192;
constexpr size_t kBucketsMax = size_t{1} << 24;
// Sequence number and type, which follow the key of a row.
constexpr size_t kTrailerBytes = 8;

struct Node;
using Link = std::atomic<Node*>;

// An entry: its links, then its key and value as RocksDB lays them out. The links of higher levels lie before it.
struct Node {
  Link next;

  Link& Next(int level) { return (&next)[-level]; }
  const char* Key() const { return reinterpret_cast<const char*>(this + 1); }
  static Node* Of(const char* key) { return reinterpret_cast<Node*>(const_cast<char*>(key)) - 1; }

  // Until it is linked, `next` holds the number of its levels.
  void StashLevels(int levels) {
    next.store(reinterpret_cast<Node*>(static_cast<uintptr_t>(levels)), std::memory_order_relaxed);
  }
  int StashedLevels() const {
    return static_cast<int>(reinterpret_cast<uintptr_t>(next.load(std::memory_order_relaxed)));
  }
};

// Where the levels of a bucket that has become a skip list begin.
struct Tower {
  Link first[kLevels];
};

// What a bucket holds is a list's first entry, or with the lowest bit set its tower.
Tower* TowerIn(Node* bucket) {
  const auto bits = reinterpret_cast<uintptr_t>(bucket);
  return (bits & 1) != 0 ? reinterpret_cast<Tower*>(bits - 1) : nullptr;
}

Node* Tagged(Tower* tower) { return reinterpret_cast<Node*>(reinterpret_cast<uintptr_t>(tower) + 1); }

int RandomLevels() {
  int levels = 1;
  auto* random = rocksdb::Random::GetTLSInstance();
  while (levels < kLevels && random->OneIn(kBranching)) {
    ++levels;
  }
  return levels;
}

class RowsRep final : public MemTableRep {
 public:
  RowsRep(const KeyComparator& compare, Allocator* allocator, size_t buckets)
      : MemTableRep(allocator),
        compare_(compare),
        shift_(kPositionBits - std::countr_zero(buckets)),
        count_(buckets),
        buckets_(new Link[buckets]()),
        words_((buckets + 63) / 64),
        occupied_(new std::atomic<uint64_t>[words_]()) {}

  KeyHandle Allocate(const size_t len, char** buf) override {
    const int levels = RandomLevels();
    const size_t above = sizeof(Link) * static_cast<size_t>(levels - 1);
    char* const memory = allocator_->AllocateAligned(above + sizeof(Node) + len);
    for (int level = 1; level < levels; ++level) {
      new (memory + above - sizeof(Link) * static_cast<size_t>(level)) Link(nullptr);
    }
    auto* const node = new (memory + above) Node();
    node->StashLevels(levels);
    *buf = const_cast<char*>(node->Key());
    return *buf;
  }

  void Insert(KeyHandle handle) override {
    Node* const node = Node::Of(static_cast<char*>(handle));
    const Slice key = compare_.decode_key(node->Key());
    const size_t bucket = BucketOf(key);
    Node* const first = buckets_[bucket].load(std::memory_order_relaxed);
    if (Tower* const tower = TowerIn(first)) {
      return Join(tower, node, key);
    }
    if (node->StashedLevels() >= kLookingLevels && IsLong(first)) {
      return Join(Raise(bucket, first), node, key);
    }
    Link* before = &buckets_[bucket];
    Node* after = first;
    int walked = 0;
    while (after != nullptr && compare_(after->Key(), key) < 0) {
      if (++walked > kListMax) {
        return Join(Raise(bucket, first), node, key);
      }
      before = &after->next;
      after = before->load(std::memory_order_relaxed);
    }
    node->next.store(after, std::memory_order_relaxed);
    before->store(node, std::memory_order_release);
    if (first == nullptr) {
      std::atomic<uint64_t>& word = occupied_[bucket / 64];
      word.store(word.load(std::memory_order_relaxed) | uint64_t{1} << (bucket % 64), std::memory_order_release);
    }
  }

  bool Contains(const char* key) const override {
    const Slice target = compare_.decode_key(key);
    const Node* const found = AtOrAfter(BucketOf(target), target);
    return found != nullptr && compare_(found->Key(), target) == 0;
  }

  size_t ApproximateMemoryUsage() override { return count_ * sizeof(Link) + words_ * sizeof(uint64_t); }

  MemTableRep::Iterator* GetIterator(Arena* arena) override {
    if (arena == nullptr) {
      return new Iterator(this);
    }
    return new (arena->AllocateAligned(sizeof(Iterator))) Iterator(this);
  }

 private:
  // Walks the buckets in their order, and each bucket's entries in theirs.
  class Iterator final : public MemTableRep::Iterator {
   public:
    explicit Iterator(const RowsRep* rows) : rows_(rows) {}

    bool Valid() const override { return node_ != nullptr; }
    const char* key() const override { return node_->Key(); }

    void Next() override { Settle(node_->next.load(std::memory_order_acquire)); }

    void Prev() override {
      const Node* const now = node_;
      SettleBack(rows_->Before(bucket_, rows_->compare_.decode_key(now->Key())));
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
      if (found != nullptr && rows_->compare_(found->Key(), target) == 0) {
        node_ = found;
      } else {
        SettleBack(rows_->Before(bucket_, target));
      }
    }

    void SeekToFirst() override {
      bucket_ = 0;
      Settle(rows_->First(bucket_));
    }

    void SeekToLast() override {
      bucket_ = rows_->count_ - 1;
      SettleBack(rows_->Last(bucket_));
    }

   private:
    Slice Target(const Slice& internal_key, const char* memtable_key) const {
      return memtable_key != nullptr ? rows_->compare_.decode_key(memtable_key) : internal_key;
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

    const RowsRep* rows_;
    size_t bucket_ = 0;
    Node* node_ = nullptr;
  };

  // The first bits of a key with its trailer; a shorter one sorts as if zeros followed.
  size_t BucketOf(const Slice& internal_key) const {
    const size_t bytes = std::min(internal_key.size() - kTrailerBytes, size_t{kPositionBits / 8});
    uint64_t position = 0;
    for (size_t i = 0; i < kPositionBits / 8; ++i) {
      position = position << 8 | (i < bytes ? static_cast<uint8_t>(internal_key[i]) : 0);
    }
    return position >> shift_;
  }

  static bool IsLong(Node* first) {
    int entries = 0;
    for (Node* at = first; at != nullptr && entries <= kListMax; at = at->next.load(std::memory_order_relaxed)) {
      ++entries;
    }
    return entries > kListMax;
  }

  // Turns the list of `bucket`, which begins with `first`, into a skip list that has nobody in its upper levels yet.
  Tower* Raise(size_t bucket, Node* first) {
    auto* const tower = new (allocator_->AllocateAligned(sizeof(Tower))) Tower();
    tower->first[0].store(first, std::memory_order_relaxed);
    buckets_[bucket].store(Tagged(tower), std::memory_order_release);
    return tower;
  }

  // The link that follows `before` on `level`: the tower's, if that is null.
  static Link& After(Tower* tower, Node* before, int level) {
    return before != nullptr ? before->Next(level) : tower->first[level];
  }

  // The last entry on `level` that sorts before `key`, from `before` on.
  Node* WalkLevel(Tower* tower, Node* before, int level, const Slice& key) const {
    while (true) {
      Node* const next = After(tower, before, level).load(std::memory_order_acquire);
      if (next == nullptr || compare_(next->Key(), key) >= 0) {
        return before;
      }
      before = next;
    }
  }

  void Join(Tower* tower, Node* node, const Slice& key) {
    const int levels = node->StashedLevels();
    Link* links[kLevels];
    Node* before = nullptr;
    for (int level = kLevels - 1; level >= 0; --level) {
      before = WalkLevel(tower, before, level, key);
      links[level] = &After(tower, before, level);
    }
    for (int level = 0; level < levels; ++level) {
      node->Next(level).store(links[level]->load(std::memory_order_relaxed), std::memory_order_relaxed);
      links[level]->store(node, std::memory_order_release);
    }
  }

  Node* First(size_t bucket) const {
    Node* const first = buckets_[bucket].load(std::memory_order_acquire);
    Tower* const tower = TowerIn(first);
    return tower != nullptr ? tower->first[0].load(std::memory_order_acquire) : first;
  }

  // The last entry of `bucket` that sorts before `key`.
  Node* Before(size_t bucket, const Slice& key) const {
    Node* at = nullptr;
    Node* next = buckets_[bucket].load(std::memory_order_acquire);
    if (Tower* const tower = TowerIn(next)) {
      for (int level = kLevels - 1; level >= 0; --level) {
        at = WalkLevel(tower, at, level, key);
      }
      return at;
    }
    while (next != nullptr && compare_(next->Key(), key) < 0) {
      at = next;
      next = at->next.load(std::memory_order_acquire);
    }
    return at;
  }

  // The first entry of `bucket` that does not sort before `key`.
  Node* AtOrAfter(size_t bucket, const Slice& key) const {
    Node* const before = Before(bucket, key);
    Node* at = before != nullptr ? before->next.load(std::memory_order_acquire) : First(bucket);
    // Past what was inserted meanwhile.
    while (at != nullptr && compare_(at->Key(), key) < 0) {
      at = at->next.load(std::memory_order_acquire);
    }
    return at;
  }

  Node* Last(size_t bucket) const {
    Node* at = nullptr;
    Node* next = buckets_[bucket].load(std::memory_order_acquire);
    if (Tower* const tower = TowerIn(next)) {
      for (int level = kLevels - 1; level >= 0; --level) {
        while ((next = After(tower, at, level).load(std::memory_order_acquire)) != nullptr) {
          at = next;
        }
      }
      return at;
    }
    while (next != nullptr) {
      at = next;
      next = at->next.load(std::memory_order_acquire);
    }
    return at;
  }

  // Moves `bucket` to the next one with entries, if there is one.
  bool NextOccupied(size_t* bucket) const {
    const size_t from = *bucket + 1;
    uint64_t mask = ~uint64_t{0} << (from % 64);
    for (size_t word = from / 64; word < words_; ++word, mask = ~uint64_t{0}) {
      const uint64_t set = occupied_[word].load(std::memory_order_acquire) & mask;
      if (set != 0) {
        *bucket = word * 64 + static_cast<size_t>(std::countr_zero(set));
        return true;
      }
    }
    return false;
  }

  // Moves `bucket` to the last one with entries before it, if there is one.
  bool PreviousOccupied(size_t* bucket) const {
    uint64_t mask = (uint64_t{1} << (*bucket % 64)) - 1;
    for (size_t word = *bucket / 64 + 1; word-- > 0; mask = ~uint64_t{0}) {
      const uint64_t set = occupied_[word].load(std::memory_order_acquire) & mask;
      if (set != 0) {
        *bucket = word * 64 + 63 - static_cast<size_t>(std::countl_zero(set));
        return true;
      }
    }
    return false;
  }

  const KeyComparator& compare_;
  const int shift_;
  const size_t count_;
  const std::unique_ptr<Link[]> buckets_;
  const size_t words_;
  // A bit for each bucket with entries, so that a walk does not look at all the others.
  const std::unique_ptr<std::atomic<uint64_t>[]> occupied_;
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
