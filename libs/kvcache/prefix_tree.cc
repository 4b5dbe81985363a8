#include "libs/kvcache/prefix_tree.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "libs/base/check.h"
#include "libs/base/rng.h"

namespace switchyard {

PrefixTree::PrefixTree(BlockPool& pool, uint32_t block_tokens)
    : pool_(pool),
      block_tokens_(block_tokens),
      nodes_(pool.block_count()),
      tokens_(size_t{pool.block_count()} * block_tokens),
      buckets_(std::bit_ceil(size_t{pool.block_count()} + 1), kNone) {
  SY_CHECK(block_tokens > 0);
}

PrefixTree::~PrefixTree() { Clear(); }

std::optional<BlockId> PrefixTree::Allocate() {
  if (pool_.free_count() == 0 && oldest_ != kNone) {
    Evict(oldest_);
    ++evicted_total_;
  }
  return pool_.Allocate();
}

void PrefixTree::Match(const PrefixRun& run, std::vector<BlockId>& blocks) const {
  blocks.clear();
  uint32_t parent = kNone;
  for (uint32_t index = 0; index < run.tokens.size() / block_tokens_; ++index) {
    const uint32_t block = Find(KeyOf(run, index, parent));
    if (block == kNone) {
      return;
    }
    blocks.emplace_back(block);
    parent = block;
  }
}

void PrefixTree::Hold(BlockId block) {
  SY_CHECK(nodes_[block.value()].cached);
  if (!IsHeld(block)) {
    Unlink(block.value());
  }
  pool_.AddReference(block);
}

void PrefixTree::Release(BlockId block) {
  const bool cached = nodes_[block.value()].cached;
  SY_CHECK(!cached || IsHeld(block));  // The tree's own reference is not given up here.
  pool_.Release(block);
  if (cached && !IsHeld(block)) {
    PushNewest(block.value());
  }
}

void PrefixTree::Insert(const PrefixRun& run, uint32_t index, std::span<BlockId> blocks) {
  const BlockId block = blocks[index];
  const uint32_t parent = index == 0 ? kNone : blocks[index - 1].value();
  SY_CHECK(run.tokens.size() == size_t{index + 1} * block_tokens_);
  SY_CHECK(!nodes_[block.value()].cached && (parent == kNone || nodes_[parent].cached));
  const Key key = KeyOf(run, index, parent);
  const uint32_t equal = Find(key);
  if (equal != kNone) {
    Hold(BlockId(equal));
    Release(block);
    blocks[index] = BlockId(equal);
    return;
  }
  pool_.AddReference(block);
  ++cached_count_;
  std::ranges::copy(key.tokens, &tokens_[size_t{block.value()} * block_tokens_]);
  uint32_t& bucket = BucketOf(key.hash);
  nodes_[block.value()] = {.cached = true,
                           .parent = parent,
                           .expanded_count = key.expanded_count,
                           .next_in_bucket = bucket,
                           .hash = key.hash,
                           .scope = run.scope};
  bucket = block.value();
}

void PrefixTree::Clear() {
  while (oldest_ != kNone) {
    Evict(oldest_);
  }
}

bool PrefixTree::IsHeld(BlockId block) const {
  const uint32_t own = nodes_[block.value()].cached ? 1 : 0;
  return pool_.reference_count(block) > own;
}

// The block before it stands for all that comes before, so only the first of a run tells scopes
// apart; the others have their parent's.
PrefixTree::Key PrefixTree::KeyOf(const PrefixRun& run, uint32_t index, uint32_t parent) const {
  const uint32_t first = index * block_tokens_;
  Key key{.scope = run.scope,
          .parent = parent,
          .expanded_count =
              run.expanded_count <= first ? 0 : std::min(run.expanded_count - first, block_tokens_),
          .tokens = run.tokens.subspan(first, block_tokens_)};
  key.hash = Mix64(uint64_t{parent} << 32 | key.expanded_count);
  if (parent == kNone) {
    uint64_t words[sizeof(PrefixScope) / sizeof(uint64_t)];
    std::memcpy(words, run.scope.data(), sizeof(words));
    for (const uint64_t word : words) {
      key.hash = Mix64(key.hash ^ word);
    }
  }
  for (const TokenId token : key.tokens) {
    key.hash = Mix64(key.hash ^ token);
  }
  return key;
}

uint32_t PrefixTree::Find(const Key& key) const {
  uint32_t block = buckets_[key.hash & (buckets_.size() - 1)];
  for (; block != kNone; block = nodes_[block].next_in_bucket) {
    const Node& node = nodes_[block];
    if (node.hash == key.hash && node.parent == key.parent &&
        node.expanded_count == key.expanded_count && node.scope == key.scope &&
        std::ranges::equal(TokensOf(block), key.tokens)) {
      return block;
    }
  }
  return kNone;
}

std::span<const TokenId> PrefixTree::TokensOf(uint32_t block) const {
  return std::span(tokens_).subspan(size_t{block} * block_tokens_, block_tokens_);
}

void PrefixTree::Evict(uint32_t block) {
  Unlink(block);
  Node& node = nodes_[block];
  uint32_t* link = &BucketOf(node.hash);
  while (*link != block) {
    link = &nodes_[*link].next_in_bucket;
  }
  *link = node.next_in_bucket;
  node.cached = false;
  --cached_count_;
  pool_.Release(BlockId(block));
}

void PrefixTree::PushNewest(uint32_t block) {
  nodes_[block].older = newest_;
  nodes_[block].newer = kNone;
  (newest_ == kNone ? oldest_ : nodes_[newest_].newer) = block;
  newest_ = block;
  ++idle_count_;
}

void PrefixTree::Unlink(uint32_t block) {
  const Node& node = nodes_[block];
  (node.older == kNone ? oldest_ : nodes_[node.older].newer) = node.newer;
  (node.newer == kNone ? newest_ : nodes_[node.newer].older) = node.older;
  --idle_count_;
}

}  // namespace switchyard
