#include "libs/kvcache/prefix_tree.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/rng.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr PrefixScope kAlice{1};
constexpr PrefixScope kBob{2};

using Tokens = std::vector<TokenId>;

// A sequence that fills blocks of two tokens as a scheduler would.
class PrefixTreeTest : public testing::Test {
 protected:
  static constexpr uint32_t kBlockTokens = 2;

  explicit PrefixTreeTest(uint32_t block_count = 8)
      : pool_(block_count), tree_(pool_, kBlockTokens) {}

  // Computes all full blocks of `tokens` and holds them.
  std::vector<BlockId> Fill(const PrefixRun& run) {
    std::vector<BlockId> blocks;
    for (uint32_t index = 0; index < run.tokens.size() / kBlockTokens; ++index) {
      blocks.push_back(tree_.Allocate().value());
      const size_t end = size_t{index + 1} * kBlockTokens;
      tree_.Insert({.scope = run.scope,
                    .tokens = run.tokens.first(end),
                    .expanded_count = run.expanded_count},
                   index, blocks);
    }
    return blocks;
  }

  void ReleaseAll(const std::vector<BlockId>& blocks) {
    for (size_t i = blocks.size(); i-- > 0;) {
      tree_.Release(blocks[i]);
    }
  }

  std::vector<BlockId> Matched(const PrefixScope& scope, const Tokens& tokens,
                               uint32_t expanded_count) {
    std::vector<BlockId> blocks = {BlockId(77)};
    tree_.Match({.scope = scope, .tokens = tokens, .expanded_count = expanded_count}, blocks);
    return blocks;
  }

  BlockPool pool_;
  PrefixTree tree_;
};

TEST_F(PrefixTreeTest, FindsTheLongestBeginningOfFullBlocks) {
  const Tokens known = {1, 2, 3, 4, 5, 6};
  const std::vector<BlockId> blocks = Fill({kAlice, known, 6});
  EXPECT_THAT(Matched(kAlice, {1, 2, 3, 4, 5, 6, 7}, 7),
              ElementsAre(blocks[0], blocks[1], blocks[2]));
  EXPECT_THAT(Matched(kAlice, {1, 2, 3, 4, 5}, 5), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(Matched(kAlice, {1, 2, 9, 4}, 4), ElementsAre(blocks[0]));
  EXPECT_THAT(Matched(kAlice, {9, 2, 3, 4}, 4), IsEmpty());
  EXPECT_THAT(Matched(kAlice, {1}, 1), IsEmpty());
  EXPECT_THAT(Matched(kAlice, {3, 4}, 2), IsEmpty()) << "the second block without its first";
  ReleaseAll(blocks);
}

TEST_F(PrefixTreeTest, KeepsScopesApart) {
  const Tokens known = {1, 2, 3, 4};
  const std::vector<BlockId> alice = Fill({kAlice, known, 4});
  EXPECT_THAT(Matched(kBob, known, 4), IsEmpty());
  const std::vector<BlockId> bob = Fill({kBob, known, 4});
  EXPECT_THAT(Matched(kAlice, known, 4), ElementsAre(alice[0], alice[1]));
  EXPECT_THAT(Matched(kBob, known, 4), ElementsAre(bob[0], bob[1]));
  EXPECT_EQ(tree_.cached_count(), 4U);
  ReleaseAll(alice);
  ReleaseAll(bob);
}

TEST_F(PrefixTreeTest, KeepsFormsApart) {
  const Tokens known = {1, 2, 3, 4};
  const std::vector<BlockId> blocks = Fill({kAlice, known, 3});
  EXPECT_THAT(Matched(kAlice, known, 3), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(Matched(kAlice, known, 2), ElementsAre(blocks[0]));
  EXPECT_THAT(Matched(kAlice, known, 4), ElementsAre(blocks[0]));
  EXPECT_THAT(Matched(kAlice, known, 1), IsEmpty());
  ReleaseAll(blocks);
}

TEST_F(PrefixTreeTest, TheSecondToComputeABlockTakesTheFirst) {
  const Tokens known = {1, 2, 3, 4};
  const std::vector<BlockId> first = Fill({kAlice, known, 4});
  const std::vector<BlockId> second = Fill({kAlice, known, 4});
  EXPECT_EQ(first, second);
  EXPECT_EQ(pool_.free_count(), 6U);
  EXPECT_EQ(pool_.reference_count(first[1]), 3U);
  ReleaseAll(first);
  EXPECT_TRUE(tree_.IsHeld(second[0]));
  ReleaseAll(second);
  EXPECT_FALSE(tree_.IsHeld(second[0]));
  EXPECT_EQ(tree_.available_count(), 8U);
  EXPECT_EQ(pool_.free_count(), 6U);
}

TEST_F(PrefixTreeTest, EvictsWhatWasReleasedFirstAndLaterBlocksBeforeEarlierOnes) {
  const Tokens old = {1, 2, 3, 4};
  const Tokens recent = {5, 6, 7, 8};
  const Tokens held = {1, 2, 9, 9};
  const std::vector<BlockId> old_blocks = Fill({kAlice, old, 4});
  const std::vector<BlockId> recent_blocks = Fill({kAlice, recent, 4});
  const std::vector<BlockId> held_blocks = Fill({kAlice, held, 4});
  EXPECT_EQ(held_blocks[0], old_blocks[0]);
  ReleaseAll(old_blocks);
  ReleaseAll(recent_blocks);
  EXPECT_EQ(tree_.available_count(), 6U);
  std::vector<BlockId> taken;
  for (int i = 0; i < 3; ++i) {
    taken.push_back(tree_.Allocate().value());  // Those never used.
  }
  EXPECT_EQ(tree_.evicted_total(), 0U);
  taken.push_back(tree_.Allocate().value());
  EXPECT_EQ(taken.back(), old_blocks[1]);
  EXPECT_THAT(Matched(kAlice, old, 4), ElementsAre(old_blocks[0]));
  taken.push_back(tree_.Allocate().value());
  EXPECT_EQ(taken.back(), recent_blocks[1]);
  EXPECT_THAT(Matched(kAlice, recent, 4), ElementsAre(recent_blocks[0]));
  taken.push_back(tree_.Allocate().value());
  EXPECT_EQ(taken.back(), recent_blocks[0]);
  EXPECT_EQ(tree_.Allocate(), std::nullopt) << "the others are held";
  EXPECT_EQ(tree_.evicted_total(), 3U);
  ReleaseAll(taken);
  ReleaseAll(held_blocks);
}

TEST_F(PrefixTreeTest, HoldingABlockAgainKeepsItFromEviction) {
  const Tokens known = {1, 2};
  const Tokens other = {3, 4};
  const std::vector<BlockId> first = Fill({kAlice, known, 2});
  ReleaseAll(first);
  ReleaseAll(Fill({kAlice, other, 2}));
  tree_.Hold(first[0]);
  tree_.Release(first[0]);  // Now the newest.
  for (int i = 0; i < 7; ++i) {
    ASSERT_TRUE(tree_.Allocate().has_value());
  }
  EXPECT_THAT(Matched(kAlice, known, 2), ElementsAre(first[0]));
  EXPECT_THAT(Matched(kAlice, other, 2), IsEmpty());
}

TEST_F(PrefixTreeTest, ClearGivesBackEveryReference) {
  const Tokens known = {1, 2, 3, 4};
  const std::vector<BlockId> blocks = Fill({kAlice, known, 4});
  tree_.Clear();
  EXPECT_THAT(Matched(kAlice, known, 4), SizeIs(2)) << "held blocks stay";
  ReleaseAll(blocks);
  tree_.Clear();
  EXPECT_THAT(Matched(kAlice, known, 4), IsEmpty());
  EXPECT_EQ(tree_.cached_count(), 0U);
  EXPECT_EQ(pool_.free_count(), pool_.block_count());
}

TEST_F(PrefixTreeTest, UncachedBlocksAreFreeWhenReleased) {
  const BlockId block = tree_.Allocate().value();
  EXPECT_TRUE(tree_.IsHeld(block));
  tree_.Release(block);
  EXPECT_EQ(pool_.free_count(), 8U);
}

// The obvious tree: a map of whole beginnings, and who holds each.
class Twin {
 public:
  using Path = std::tuple<PrefixScope, Tokens, std::vector<bool>>;

  struct Entry {
    BlockId block;
    uint32_t holds = 0;
    uint64_t released_at = 0;
  };

  static Path PathOf(const PrefixRun& run, size_t token_count) {
    Path path{run.scope,
              {run.tokens.begin(), run.tokens.begin() + static_cast<ptrdiff_t>(token_count)},
              {}};
    for (size_t i = 0; i < token_count; ++i) {
      std::get<2>(path).push_back(i < run.expanded_count);
    }
    return path;
  }

  Entry* Find(const Path& path) {
    const auto found = entries.find(path);
    return found == entries.end() ? nullptr : &found->second;
  }

  // The idle entry without a longer one that was released longest ago.
  std::map<Path, Entry>::iterator ToEvict() {
    auto best = entries.end();
    for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
      if (entry->second.holds == 0 &&
          (best == entries.end() || entry->second.released_at < best->second.released_at)) {
        best = entry;
      }
    }
    return best;
  }

  bool HasLonger(const Path& path) const {
    return std::ranges::any_of(entries, [&](const auto& entry) {
      const Tokens& tokens = std::get<1>(entry.first);
      const Tokens& start = std::get<1>(path);
      const std::vector<bool>& forms = std::get<2>(entry.first);
      return tokens.size() > start.size() && std::get<0>(entry.first) == std::get<0>(path) &&
             std::equal(start.begin(), start.end(), tokens.begin()) &&
             std::equal(std::get<2>(path).begin(), std::get<2>(path).end(), forms.begin());
    });
  }

  std::map<Path, Entry> entries;
  uint64_t clock = 0;
};

struct Holder {
  PrefixScope scope;
  Tokens tokens;
  uint32_t expanded_count = 0;
  std::vector<BlockId> blocks;  // The cached ones it holds.

  PrefixRun RunOf(size_t token_count) const {
    return {.scope = scope,
            .tokens = std::span(tokens).first(token_count),
            .expanded_count = expanded_count};
  }
};

// Random sequences that start, fill further blocks and end, against the twin.
class Operations {
 public:
  explicit Operations(uint64_t seed)
      : rng_(seed),
        block_tokens_(static_cast<uint32_t>(1 + rng_.Below(3))),
        pool_(static_cast<uint32_t>(1 + rng_.Below(20))),
        tree_(pool_, block_tokens_) {}

  void Run() {
    for (int i = 0; i < 400 && !testing::Test::HasFailure(); ++i) {
      const uint64_t dice = rng_.Below(8);
      if (dice < 2) {
        Start();
      } else if (dice < 6 && !holders_.empty()) {
        Fill(holders_[rng_.Below(holders_.size())]);
      } else if (!holders_.empty()) {
        End(rng_.Below(holders_.size()));
      }
      Check();
    }
    while (!holders_.empty()) {
      End(0);
    }
    EXPECT_EQ(tree_.available_count(), pool_.block_count());
    tree_.Clear();
    EXPECT_EQ(pool_.free_count(), pool_.block_count());
  }

 private:
  void Start() {
    Holder holder{.scope = {static_cast<uint8_t>(rng_.Below(2))}, .tokens = {}, .blocks = {}};
    holder.tokens.resize(rng_.Below(10) * block_tokens_);
    for (TokenId& token : holder.tokens) {
      token = static_cast<TokenId>(rng_.Below(2));
    }
    holder.expanded_count = static_cast<uint32_t>(
        rng_.Chance(0.5F) ? holder.tokens.size() : rng_.Below(holder.tokens.size() + 1));
    std::vector<BlockId> expected;
    for (size_t end = block_tokens_; end <= holder.tokens.size(); end += block_tokens_) {
      Twin::Entry* const entry = twin_.Find(Twin::PathOf(holder.RunOf(end), end));
      if (entry == nullptr) {
        break;
      }
      expected.push_back(entry->block);
    }
    tree_.Match(holder.RunOf(holder.tokens.size()), holder.blocks);
    ASSERT_EQ(holder.blocks, expected);
    for (size_t i = 0; i < expected.size(); ++i) {
      tree_.Hold(expected[i]);
      const size_t end = (i + 1) * block_tokens_;
      ++twin_.Find(Twin::PathOf(holder.RunOf(end), end))->holds;
    }
    holders_.push_back(std::move(holder));
  }

  void Fill(Holder& holder) {
    const size_t end = (holder.blocks.size() + 1) * block_tokens_;
    if (end > holder.tokens.size()) {
      return;
    }
    const std::optional<BlockId> block = Allocate();
    if (!block) {
      return;
    }
    holder.blocks.push_back(*block);
    const auto index = static_cast<uint32_t>(holder.blocks.size() - 1);
    tree_.Insert(holder.RunOf(end), index, holder.blocks);
    const auto [entry, added] =
        twin_.entries.try_emplace(Twin::PathOf(holder.RunOf(end), end), Twin::Entry{*block});
    ++entry->second.holds;
    ASSERT_EQ(holder.blocks.back(), entry->second.block);
    ASSERT_EQ(added, entry->second.block == *block);
  }

  std::optional<BlockId> Allocate() {
    std::optional<BlockId> victim;
    if (pool_.free_count() == 0) {
      if (const auto oldest = twin_.ToEvict(); oldest != twin_.entries.end()) {
        EXPECT_FALSE(twin_.HasLonger(oldest->first)) << "a block before its successor";
        victim = oldest->second.block;
        twin_.entries.erase(oldest);
      }
    }
    const bool expects_block = pool_.free_count() > 0 || victim.has_value();
    const std::optional<BlockId> block = tree_.Allocate();
    EXPECT_EQ(block.has_value(), expects_block);
    if (victim) {
      EXPECT_EQ(block, victim);
    }
    return block;
  }

  void End(size_t index) {
    const Holder holder = std::move(holders_[index]);
    holders_.erase(holders_.begin() + static_cast<ptrdiff_t>(index));
    for (size_t i = holder.blocks.size(); i-- > 0;) {
      tree_.Release(holder.blocks[i]);
      const size_t end = (i + 1) * block_tokens_;
      Twin::Entry& entry = *twin_.Find(Twin::PathOf(holder.RunOf(end), end));
      if (--entry.holds == 0) {
        entry.released_at = ++twin_.clock;
      }
    }
  }

  void Check() {
    uint32_t idle = 0;
    for (const auto& [path, entry] : twin_.entries) {
      idle += entry.holds == 0 ? 1 : 0;
      ASSERT_EQ(pool_.reference_count(entry.block), entry.holds + 1);
      ASSERT_EQ(tree_.IsHeld(entry.block), entry.holds > 0);
    }
    ASSERT_EQ(tree_.cached_count(), twin_.entries.size());
    ASSERT_EQ(tree_.available_count(), pool_.free_count() + idle);
    ASSERT_EQ(pool_.free_count() + twin_.entries.size(), pool_.block_count());
  }

  Rng rng_;
  const uint32_t block_tokens_;
  BlockPool pool_;
  PrefixTree tree_;
  Twin twin_;
  std::vector<Holder> holders_;
};

TEST(PrefixTree, AgreesWithAMapOfWholeBeginningsOverRandomOperations) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Operations(seed).Run();
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

}  // namespace
}  // namespace switchyard
