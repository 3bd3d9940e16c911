// The memtable of the rows, as a data structure: sorted lists in buckets, by the position that every row's key begins with.
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

#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <new>

#include "memory/allocator.h"
#include "rocksdb/memtablerep.h"
#include "util/random.h"

namespace gyre {

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
inline Tower* TowerIn(Node* bucket) {
  const auto bits = reinterpret_cast<uintptr_t>(bucket);
  return (bits & 1) != 0 ? reinterpret_cast<Tower*>(bits - 1) : nullptr;
}

inline Node* Tagged(Tower* tower) { return reinterpret_cast<Node*>(reinterpret_cast<uintptr_t>(tower) + 1); }

inline int RandomLevels() {
  int levels = 1;
  auto* random = rocksdb::Random::GetTLSInstance();
  while (levels < kLevels && random->OneIn(kBranching)) {
    ++levels;
  }
  return levels;
}

class Buckets {
 public:
  using KeyComparator = rocksdb::MemTableRep::KeyComparator;

  // `count` is a power of two, at least 2.
  Buckets(const KeyComparator& compare, rocksdb::Allocator* allocator, size_t count)
      : compare_(compare),
        allocator_(allocator),
        shift_(kPositionBits - std::countr_zero(count)),
        count_(count),
        buckets_(new Link[count]()),
        words_((count + 63) / 64),
        occupied_(new std::atomic<uint64_t>[words_]()) {}

  size_t count() const { return count_; }
  // What is not the allocator's.
  size_t MemoryUsage() const { return count_ * sizeof(Link) + words_ * sizeof(uint64_t); }
  Slice KeyOf(const Node* node) const { return compare_.decode_key(node->Key()); }
  bool IsAt(const Node* node, const Slice& key) const { return node != nullptr && compare_(node->Key(), key) == 0; }

  // Memory for an entry of so many bytes.
  char* Allocate(size_t bytes) {
    const int levels = RandomLevels();
    const size_t above = sizeof(Link) * static_cast<size_t>(levels - 1);
    char* const memory = allocator_->AllocateAligned(above + sizeof(Node) + bytes);
    for (int level = 1; level < levels; ++level) {
      new (memory + above - sizeof(Link) * static_cast<size_t>(level)) Link(nullptr);
    }
    auto* const node = new (memory + above) Node();
    node->StashLevels(levels);
    return const_cast<char*>(node->Key());
  }

  // Takes in an entry that lies in memory of `Allocate`. One thread at a time.
  void Insert(const char* entry) {
    Node* const node = Node::Of(entry);
    const Slice key = KeyOf(node);
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
    while (Precedes(after, &key)) {
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

  // The bucket of a key, which its trailer follows. A key shorter than a position sorts as if zeros followed it.
  size_t BucketOf(const Slice& internal_key) const {
    const size_t bytes = std::min(internal_key.size() - kTrailerBytes, size_t{kPositionBits / 8});
    uint64_t position = 0;
    for (size_t i = 0; i < kPositionBits / 8; ++i) {
      position = position << 8 | (i < bytes ? static_cast<uint8_t>(internal_key[i]) : 0);
    }
    return position >> shift_;
  }

  // The first entry of `bucket`, and likewise below: null if there is none.
  Node* First(size_t bucket) const {
    Node* const first = buckets_[bucket].load(std::memory_order_acquire);
    Tower* const tower = TowerIn(first);
    return tower != nullptr ? tower->first[0].load(std::memory_order_acquire) : first;
  }

  // The last entry of `bucket` that sorts before `key`, of all entries if that is null.
  Node* Before(size_t bucket, const Slice* key) const {
    Node* at = nullptr;
    Node* next = buckets_[bucket].load(std::memory_order_acquire);
    if (Tower* const tower = TowerIn(next)) {
      for (int level = kLevels - 1; level >= 0; --level) {
        at = WalkLevel(tower, at, level, key);
      }
      return at;
    }
    while (Precedes(next, key)) {
      at = next;
      next = at->next.load(std::memory_order_acquire);
    }
    return at;
  }

  Node* Last(size_t bucket) const { return Before(bucket, nullptr); }

  // The first entry of `bucket` that does not sort before `key`.
  Node* AtOrAfter(size_t bucket, const Slice& key) const {
    Node* const before = Before(bucket, &key);
    Node* at = before != nullptr ? before->next.load(std::memory_order_acquire) : First(bucket);
    // Past what was inserted meanwhile.
    while (Precedes(at, &key)) {
      at = at->next.load(std::memory_order_acquire);
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

 private:
  // Whether a list is to become a skip list.
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

  // Whether there is a `node`, and it sorts before `key`. Everything sorts before no key.
  bool Precedes(const Node* node, const Slice* key) const {
    return node != nullptr && (key == nullptr || compare_(node->Key(), *key) < 0);
  }

  // The last entry on `level` that sorts before `key`, from `before` on.
  Node* WalkLevel(Tower* tower, Node* before, int level, const Slice* key) const {
    while (true) {
      Node* const next = After(tower, before, level).load(std::memory_order_acquire);
      if (!Precedes(next, key)) {
        return before;
      }
      before = next;
    }
  }

  // Links `node` into a skip list.
  void Join(Tower* tower, Node* node, const Slice& key) {
    const int levels = node->StashedLevels();
    Link* links[kLevels];
    Node* before = nullptr;
    for (int level = kLevels - 1; level >= 0; --level) {
      before = WalkLevel(tower, before, level, &key);
      links[level] = &After(tower, before, level);
    }
    for (int level = 0; level < levels; ++level) {
      node->Next(level).store(links[level]->load(std::memory_order_relaxed), std::memory_order_relaxed);
      links[level]->store(node, std::memory_order_release);
    }
  }

  const KeyComparator& compare_;
  rocksdb::Allocator* const allocator_;
  const int shift_;
  const size_t count_;
  const std::unique_ptr<Link[]> buckets_;
  const size_t words_;
  // A bit for each bucket with entries, so that a walk does not look at all the others.
  const std::unique_ptr<std::atomic<uint64_t>[]> occupied_;
};

}  // namespace gyre
