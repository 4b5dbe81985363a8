#include "libs/dispatch/dispatch_plan.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/dispatch/testing/reference_dispatch.h"
#include "libs/placement/planner.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One MoE layer (1) of two, where holders[e] are the shards of expert e.
RouteTable Routes(const std::vector<std::vector<uint32_t>>& holders, uint32_t shard_count) {
  Placement placement{.epoch = EpochId(4),
                      .model_digest = "d",
                      .shape = {.first_moe_layer = 1,
                                .layer_count = 2,
                                .expert_count = static_cast<uint16_t>(holders.size())},
                      .shards = {},
                      .replicas = {}};
  for (uint32_t shard = 0; shard < shard_count; ++shard) {
    placement.shards.push_back({.shard = ShardId(shard),
                                .incarnation = Incarnation(1),
                                .address = "sim:x",
                                .memory_bytes = 0});
  }
  for (size_t expert = 0; expert < holders.size(); ++expert) {
    for (const uint32_t shard : holders[expert]) {
      placement.replicas.push_back({.layer = LayerId(1),
                                    .expert = ExpertId(static_cast<uint16_t>(expert)),
                                    .shard = ShardId(shard)});
    }
  }
  return *RouteTable::Build(std::move(placement));
}

TEST(ReplicaSelector, FixesSinglesFirstThenBalancesExperts) {
  const RouteTable routes = Routes({{0, 1}, {0}, {0}, {0, 1}, {0, 1, 2}}, 3);
  const std::vector<uint16_t> activated = {0, 1, 2, 3, 4};
  const std::vector<uint8_t> usable = {1, 1, 1};
  ReplicaSelector selector;
  std::vector<uint32_t> choice;
  ASSERT_TRUE(selector.Choose(routes, LayerId(1), activated, usable, choice).ok());
  EXPECT_THAT(choice, ElementsAre(1, 0, 0, 1, 2));
}

TEST(ReplicaSelector, SkipsUnusableShardsAndNamesWhatIsMissing) {
  const RouteTable routes = Routes({{0, 1}, {0, 2}, {0}}, 3);
  const std::vector<uint8_t> usable = {0, 1, 1};
  ReplicaSelector selector;
  std::vector<uint32_t> choice;
  const std::vector<uint16_t> covered = {0, 1};
  ASSERT_TRUE(selector.Choose(routes, LayerId(1), covered, usable, choice).ok());
  EXPECT_THAT(choice, ElementsAre(1, 2));
  const std::vector<uint16_t> missing = {1, 2};
  const absl::Status status = selector.Choose(routes, LayerId(1), missing, usable, choice);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(MessageOf(status), "no shard connected for layer 1 expert 2 (epoch 4)");
}

TEST(DispatchPlan, SendsARowOncePerShardWithEntriesByExpert) {
  const RouteTable routes = Routes({{0}, {1}, {0}}, 2);
  const std::vector<uint16_t> experts = {2, 0, 1, 2};  // Row 0: 2, 0. Row 1: 1, 2.
  const std::vector<uint8_t> usable = {1, 1};
  DispatchPlanner planner;
  DispatchPlan plan;
  ASSERT_TRUE(planner
                  .Build({.layer = LayerId(1),
                          .row_count = 2,
                          .top_k = 2,
                          .experts = experts,
                          .routes = &routes,
                          .usable = usable,
                          .entries_max = 100},
                         plan)
                  .ok());
  ASSERT_EQ(plan.fragments.size(), 2U);
  EXPECT_EQ(plan.fragments[0].shard_index, 0U);
  EXPECT_EQ(plan.fragments[0].row_count, 2U);
  EXPECT_THAT(plan.rows, ElementsAre(0, 1, 1));
  EXPECT_THAT(plan.entries, ElementsAre(RouteEntry{.expert = 0, .slot = 1, .row = 0},
                                        RouteEntry{.expert = 2, .slot = 0, .row = 0},
                                        RouteEntry{.expert = 2, .slot = 1, .row = 1},
                                        RouteEntry{.expert = 1, .slot = 0, .row = 0}));
}

TEST(DispatchPlan, RefusesWhatIsOutOfBounds) {
  const RouteTable routes = Routes({{0}, {0}}, 1);
  const std::vector<uint8_t> usable = {1};
  DispatchPlanner planner;
  DispatchPlan plan;
  const auto build = [&](uint16_t layer, const std::vector<uint16_t>& experts) {
    return planner.Build({.layer = LayerId(layer),
                          .row_count = 1,
                          .top_k = static_cast<uint32_t>(experts.size()),
                          .experts = experts,
                          .routes = &routes,
                          .usable = usable,
                          .entries_max = 100},
                         plan);
  };
  EXPECT_TRUE(build(1, {0, 1}).ok());
  EXPECT_THAT(MessageOf(build(0, {0, 1})), HasSubstr("layer 0, MoE layers are [1, 2)"));
  EXPECT_THAT(MessageOf(build(2, {0, 1})), HasSubstr("layer 2"));
  EXPECT_THAT(MessageOf(build(1, {0, 2})), HasSubstr("expert 2 of 2"));
  EXPECT_THAT(MessageOf(build(1, {1, 1})), HasSubstr("names expert 1 twice"));
}

TEST(DispatchPlan, CoversEachPairOnceAsTheReferenceChoosesOverRandomInputs) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Rng rng(seed);
    const auto shard_count = static_cast<uint32_t>(1 + rng.Below(5));
    std::vector<std::vector<uint32_t>> holders(12);
    for (auto& shards : holders) {
      std::set<uint32_t> chosen = {static_cast<uint32_t>(rng.Below(shard_count))};
      chosen.insert(static_cast<uint32_t>(rng.Below(shard_count)));
      shards.assign(chosen.begin(), chosen.end());
    }
    const RouteTable routes = Routes(holders, shard_count);
    const auto row_count = static_cast<uint32_t>(rng.Below(40));
    const auto top_k = static_cast<uint32_t>(1 + rng.Below(6));
    std::vector<uint16_t> experts;
    for (uint32_t row = 0; row < row_count; ++row) {
      std::vector<uint16_t> order(12);
      for (uint16_t i = 0; i < 12; ++i) {
        order[i] = i;
      }
      for (uint32_t slot = 0; slot < top_k; ++slot) {
        std::swap(order[slot], order[slot + rng.Below(12 - slot)]);
        experts.push_back(order[slot]);
      }
    }
    const std::vector<uint8_t> usable(shard_count, 1);
    const DispatchPlanInput input{.layer = LayerId(1),
                                  .row_count = row_count,
                                  .top_k = top_k,
                                  .experts = experts,
                                  .routes = &routes,
                                  .usable = usable,
                                  .entries_max = static_cast<uint32_t>(1 + rng.Below(20))};
    DispatchPlanner planner;
    DispatchPlan plan;
    ASSERT_TRUE(planner.Build(input, plan).ok());
    const std::map<uint16_t, uint32_t> choice = ReferenceChoice(input);
    std::set<std::pair<uint32_t, uint32_t>> seen;  // (row, slot)
    for (const FragmentPlan& fragment : plan.fragments) {
      EXPECT_GE(fragment.entry_count, 1U);
      EXPECT_LE(fragment.entry_count, input.entries_max);
      for (uint32_t i = 0; i < fragment.entry_count; ++i) {
        const RouteEntry& entry = plan.entries[fragment.first_entry + i];
        ASSERT_LT(entry.row, fragment.row_count);
        const uint32_t row = plan.BatchRow(fragment, fragment.first_entry + i);
        EXPECT_EQ(entry.expert, experts[row * top_k + entry.slot]);
        EXPECT_EQ(fragment.shard_index, choice.at(entry.expert));
        EXPECT_TRUE(seen.insert({row, entry.slot}).second);
      }
    }
    EXPECT_EQ(seen.size(), experts.size());
  }
}

TEST(Combine, AddsWithOneRoundingPerSlotInSlotOrderThenShared) {
  constexpr uint32_t kRows = 3;
  constexpr uint32_t kTopK = 4;
  constexpr uint32_t kHidden = 1037;  // Not a multiple of any vector; more than one block.
  Rng rng(7);
  std::vector<float> expert_rows(kRows * kTopK * kHidden);
  std::vector<float> weights(kRows * kTopK);
  std::vector<float> shared(kRows * kHidden);
  std::vector<float> out(kRows * kHidden);
  for (std::vector<float>* values : {&expert_rows, &weights, &shared, &out}) {
    for (float& value : *values) {
      value = rng.Unit() - 0.5F;
    }
  }
  for (const bool with_shared : {false, true}) {
    std::vector<float> expected = out;
    for (uint32_t row = 0; row < kRows; ++row) {
      for (uint32_t i = 0; i < kHidden; ++i) {
        float sum = 0.0F;
        for (uint32_t slot = 0; slot < kTopK; ++slot) {
          sum = std::fma(weights[row * kTopK + slot],
                         expert_rows[(row * kTopK + slot) * kHidden + i], sum);
        }
        expected[row * kHidden + i] += with_shared ? sum + shared[row * kHidden + i] : sum;
      }
    }
    std::vector<float> got = out;
    Combine({.row_count = kRows,
             .top_k = kTopK,
             .hidden_size = kHidden,
             .expert_rows = expert_rows.data(),
             .weights = weights.data(),
             .shared = with_shared ? shared.data() : nullptr,
             .out = got.data()});
    EXPECT_EQ(got, expected);
  }
}

}  // namespace
}  // namespace switchyard
