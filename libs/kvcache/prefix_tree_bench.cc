// What the prefix cache costs: finding a prompt that is cached, caching one that is not, and taking
// a block when each that is free must be evicted first.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <benchmark/benchmark.h>

#include "libs/base/check.h"
#include "libs/kvcache/prefix_tree.h"

namespace switchyard {
namespace {

constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kPrompts = 16;
constexpr PrefixScope kScope{};

std::vector<TokenId> Prompt(uint32_t blocks, uint32_t seed) {
  std::vector<TokenId> tokens(size_t{blocks} * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<TokenId>((seed * 7919 + i) % 4096);
  }
  return tokens;
}

// A full cache whose `kPrompts` prompts nobody holds.
struct Cache {
  uint32_t blocks_per_prompt;
  BlockPool pool;
  PrefixTree tree;
  std::vector<BlockId> blocks;

  explicit Cache(uint32_t blocks_each)
      : blocks_per_prompt(blocks_each), pool(kPrompts * blocks_each), tree(pool, kBlockTokens) {
    for (uint32_t i = 0; i < kPrompts; ++i) {
      Add(Prompt(blocks_each, i));
    }
  }

  void Add(const std::vector<TokenId>& tokens) {
    blocks.clear();
    for (uint32_t i = 0; i < blocks_per_prompt; ++i) {
      blocks.push_back(*tree.Allocate());
      tree.Insert({.scope = kScope,
                   .tokens = std::span(tokens).first(size_t{i + 1} * kBlockTokens),
                   .expanded_count = static_cast<uint32_t>(tokens.size())},
                  i, blocks);
    }
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      tree.Release(*block);
    }
  }
};

void BM_Match(benchmark::State& state) {
  const auto blocks = static_cast<uint32_t>(state.range(0));
  const Cache cache(blocks);
  const std::vector<TokenId> tokens = Prompt(blocks, kPrompts - 1);
  std::vector<BlockId> found;
  for (auto unused : state) {
    cache.tree.Match(
        {.scope = kScope, .tokens = tokens, .expanded_count = static_cast<uint32_t>(tokens.size())},
        found);
    SY_CHECK(found.size() == blocks);
  }
  state.SetItemsProcessed(state.iterations() * blocks);
}

BENCHMARK(BM_Match)->Arg(8)->Arg(64)->Arg(1024)->ArgName("blocks");

// Each prompt is new, so each block is evicted from an older one, filled, cached and released.
void BM_EvictInsertRelease(benchmark::State& state) {
  const auto blocks = static_cast<uint32_t>(state.range(0));
  Cache cache(blocks);
  std::vector<TokenId> tokens = Prompt(blocks, kPrompts);
  for (auto unused : state) {
    ++tokens.front();
    cache.Add(tokens);
  }
  state.SetItemsProcessed(state.iterations() * blocks);
}

BENCHMARK(BM_EvictInsertRelease)->Arg(8)->Arg(64)->Arg(1024)->ArgName("blocks");

}  // namespace
}  // namespace switchyard
