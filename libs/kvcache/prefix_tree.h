#ifndef SWITCHYARD_LIBS_KVCACHE_PREFIX_TREE_H_
#define SWITCHYARD_LIBS_KVCACHE_PREFIX_TREE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "libs/base/ids.h"
#include "libs/kvcache/block_pool.h"

namespace switchyard {

// Only runs of one scope share blocks: a digest of the tenant and the salt, or whatever separates
// them. A value; equal scopes are one scope, so digests that a stranger could make equal will not
// do.
using PrefixScope = std::array<uint8_t, 32>;

// The beginning of a sequence. The rounding of a cached row depends on the form in which its
// position was computed, so the forms are part of the key.
struct PrefixRun {
  const PrefixScope& scope;
  std::span<const TokenId> tokens;
  uint32_t expanded_count = 0;  // Positions below it are computed expanded, the others absorbed.
};

// PrefixTree remembers which full blocks hold which tokens, after which others, in which form, so
// that an equal beginning need not be computed again. It holds one reference to each cached block;
// those that nobody else holds are evicted, the one released longest ago first, when the pool has
// no free block.
//
// A sequence takes and releases all its blocks here, cached or not. Holding a cached block, it
// holds those before it, and it releases the last one first: so the block to evict is never
// followed by another.
//
// One owner: the step thread. Memory is taken at construction, for every block of the pool. Keys
// are compared in full; a hash only finds them.
class PrefixTree {
 public:
  // `pool` outlives the tree and has no other user.
  PrefixTree(BlockPool& pool, uint32_t block_tokens);
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;
  ~PrefixTree();

  // A block with one reference besides the tree's: a free one, else the one evicted for it;
  // nullopt when all are held.
  std::optional<BlockId> Allocate();

  // Sets `blocks` to the cached blocks of the longest beginning of `run`, without holding them.
  void Match(const PrefixRun& run, std::vector<BlockId>& blocks) const;

  // Holds a cached block.
  void Hold(BlockId block);

  // Gives up one hold. A cached block stays cached.
  void Release(BlockId block);

  // Caches blocks[index], which is full, held, and holds the last tokens of `run`; blocks before
  // it are cached and held. Where an equal block is cached already, that one takes the place of
  // blocks[index], which is given up: both hold the same bits.
  void Insert(const PrefixRun& run, uint32_t index, std::span<BlockId> blocks);

  // Evicts every block that nobody holds.
  void Clear();

  bool IsHeld(BlockId block) const;

  // Blocks that Allocate() can still give: free ones, and cached ones that nobody holds.
  uint32_t available_count() const { return pool_.free_count() + idle_count_; }

  uint32_t cached_count() const { return cached_count_; }

  uint64_t evicted_total() const { return evicted_total_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // What is cached in the block of the same index; its tokens are in tokens_.
  struct Node {
    bool cached = false;
    uint32_t parent = kNone;          // The block before it; kNone for the first of a run.
    uint32_t expanded_count = 0;      // Of its own positions.
    uint32_t next_in_bucket = kNone;  // Of those with the same bucket.
    uint32_t older = kNone;           // Of those that nobody holds.
    uint32_t newer = kNone;
    uint64_t hash = 0;
    PrefixScope scope{};
  };

  // A node to find or to make.
  struct Key {
    const PrefixScope& scope;
    uint32_t parent = kNone;
    uint32_t expanded_count = 0;
    std::span<const TokenId> tokens;
    uint64_t hash = 0;
  };

  Key KeyOf(const PrefixRun& run, uint32_t index, uint32_t parent) const;
  uint32_t Find(const Key& key) const;

  uint32_t& BucketOf(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }

  std::span<const TokenId> TokensOf(uint32_t block) const;
  void Evict(uint32_t block);
  void PushNewest(uint32_t block);
  void Unlink(uint32_t block);

  BlockPool& pool_;
  const uint32_t block_tokens_;
  std::vector<Node> nodes_;        // By block.
  std::vector<TokenId> tokens_;    // [block][block_tokens_]
  std::vector<uint32_t> buckets_;  // First block of each; a power of two of them.
  uint32_t oldest_ = kNone;        // Of the cached blocks that nobody holds.
  uint32_t newest_ = kNone;
  uint32_t idle_count_ = 0;  // Their number.
  uint32_t cached_count_ = 0;
  uint64_t evicted_total_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KVCACHE_PREFIX_TREE_H_
