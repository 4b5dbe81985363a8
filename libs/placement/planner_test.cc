#include "libs/placement/planner.h"

#include <algorithm>
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/placement/diff.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

ShardInfo Shard(uint32_t ordinal, uint64_t memory_bytes = 0) {
  return {.shard = ShardId(ordinal),
          .incarnation = Incarnation(ordinal + 1),
          .address = fmt::format("sim:shard-{}", ordinal),
          .memory_bytes = memory_bytes};
}

PlanInput Input(uint32_t shard_count, uint64_t memory_bytes, uint32_t replicas_wanted) {
  PlanInput input{.epoch = EpochId(1),
                  .model_digest = "digest",
                  .shape = {.first_moe_layer = 1, .layer_count = 4, .expert_count = 8},
                  .shards = {},
                  .expert_bytes = 10,
                  .replicas_wanted = replicas_wanted,
                  .previous = nullptr};
  for (uint32_t i = 0; i < shard_count; ++i) {
    input.shards.push_back(Shard(i, memory_bytes));
  }
  return input;
}

// Replicas by (layer, shard).
std::map<std::pair<LayerId, ShardId>, uint32_t> CountsOf(const Placement& placement) {
  std::map<std::pair<LayerId, ShardId>, uint32_t> counts;
  for (uint32_t layer = placement.shape.first_moe_layer; layer < placement.shape.layer_count;
       ++layer) {
    for (const ShardInfo& shard : placement.shards) {
      counts[{LayerId(static_cast<uint16_t>(layer)), shard.shard}] = 0;
    }
  }
  for (const Replica& replica : placement.replicas) {
    ++counts[{replica.layer, replica.shard}];
  }
  return counts;
}

TEST(Planner, SpreadsEachLayerEvenly) {
  const absl::StatusOr<Placement> placement = PlanPlacement(Input(3, 0, 2));
  ASSERT_TRUE(placement.ok()) << placement.status();
  EXPECT_EQ(ReplicasMin(*placement), 2U);
  for (const auto& [key, count] : CountsOf(*placement)) {
    EXPECT_GE(count, 5U);
    EXPECT_LE(count, 6U);
  }
}

TEST(Planner, GivesNoMoreCopiesThanShards) {
  const absl::StatusOr<Placement> placement = PlanPlacement(Input(2, 0, 5));
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(ReplicasMin(*placement), 2U);
  EXPECT_EQ(placement->replicas.size(), 2U * 24);
}

TEST(Planner, GivesWhatMemoryAllows) {
  const absl::StatusOr<Placement> placement = PlanPlacement(Input(3, 150, 3));
  ASSERT_TRUE(placement.ok());
  EXPECT_EQ(ReplicasMin(*placement), 1U);
  EXPECT_EQ(placement->replicas.size(), 45U);
}

TEST(Planner, NamesBothNumbersWhenOneCopyDoesNotFit) {
  const absl::StatusOr<Placement> placement = PlanPlacement(Input(3, 75, 1));
  EXPECT_EQ(placement.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(placement.status()), HasSubstr("needs 240 bytes"));
  EXPECT_THAT(MessageOf(placement.status()),
              HasSubstr("3 shards have room for 21 experts (210 bytes)"));
}

TEST(Planner, RefusesBrokenInput) {
  EXPECT_EQ(PlanPlacement(Input(0, 0, 1)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(PlanPlacement(Input(2, 0, 0)).status().code(), absl::StatusCode::kInvalidArgument);
  PlanInput twice = Input(2, 0, 1);
  twice.shards[1].shard = ShardId(0);
  EXPECT_THAT(MessageOf(PlanPlacement(twice).status()), HasSubstr("shard 0 is registered twice"));
}

TEST(Planner, KeepsEverythingWhenNothingChanged) {
  PlanInput input = Input(3, 0, 2);
  const Placement first = *PlanPlacement(input);
  input.previous = &first;
  input.epoch = EpochId(2);
  const PlacementDiff diff = DiffOf(first, *PlanPlacement(input));
  EXPECT_TRUE(diff.adds.empty());
  EXPECT_TRUE(diff.drops.empty());
}

TEST(Planner, MovesOnlyAFairShareToANewShard) {
  PlanInput input = Input(3, 0, 1);
  const Placement first = *PlanPlacement(input);
  input.previous = &first;
  input.shards.push_back(Shard(3));
  const PlacementDiff diff = DiffOf(first, *PlanPlacement(input));
  EXPECT_EQ(diff.adds.size(), 6U);
  EXPECT_EQ(PlacementDiff::OfShard(diff.adds, ShardId(3)).size(), 6U);
  EXPECT_EQ(diff.drops.size(), 6U);
}

TEST(Planner, RestoresOnlyWhatALostShardHeld) {
  PlanInput input = Input(4, 0, 2);
  const Placement first = *PlanPlacement(input);
  input.previous = &first;
  input.shards.erase(input.shards.begin() + 1);
  const Placement second = *PlanPlacement(input);
  EXPECT_EQ(ReplicasMin(second), 2U);
  const PlacementDiff diff = DiffOf(first, second);
  const size_t lost = PlacementDiff::OfShard(first.replicas, ShardId(1)).size();
  EXPECT_LE(diff.adds.size(), lost + lost / 2);  // Chains of moves may cost a few more.
}

TEST(Diff, ARestartedShardLoadsAgain) {
  PlanInput input = Input(2, 0, 1);
  const Placement first = *PlanPlacement(input);
  Placement second = first;
  second.epoch = EpochId(2);
  second.shards[1].incarnation = Incarnation(9);
  const PlacementDiff diff = DiffOf(first, second);
  EXPECT_EQ(diff.adds, PlacementDiff::OfShard(first.replicas, ShardId(1)));
  EXPECT_EQ(diff.adds, diff.drops);
  EXPECT_EQ(*ApplyDiff(diff, first), second);
}

TEST(Diff, RefusesAnotherStart) {
  const Placement first = *PlanPlacement(Input(2, 0, 1));
  Placement other = first;
  other.epoch = EpochId(7);
  const PlacementDiff diff = DiffOf(first, other);
  EXPECT_EQ(ApplyDiff(diff, other).status().code(), absl::StatusCode::kFailedPrecondition);
  PlacementDiff wrong = diff;
  wrong.adds = {first.replicas[0]};
  EXPECT_EQ(ApplyDiff(wrong, first).status().code(), absl::StatusCode::kFailedPrecondition);
  wrong.adds.clear();
  wrong.drops = {{.layer = LayerId(1), .expert = ExpertId(0), .shard = ShardId(99)}};
  EXPECT_EQ(ApplyDiff(wrong, first).status().code(), absl::StatusCode::kFailedPrecondition);
}

PlanInput RandomInput(Rng& rng) {
  PlanInput input{.epoch = EpochId(rng.Below(100) + 1),
                  .model_digest = "digest",
                  .shape = {.first_moe_layer = static_cast<uint16_t>(rng.Below(3)),
                            .layer_count = static_cast<uint16_t>(3 + rng.Below(4)),
                            .expert_count = static_cast<uint16_t>(1 + rng.Below(12))},
                  .shards = {},
                  .expert_bytes = 1 + rng.Below(5),
                  .replicas_wanted = static_cast<uint32_t>(1 + rng.Below(4)),
                  .previous = nullptr};
  const uint64_t shard_count = 1 + rng.Below(7);
  for (uint64_t i = 0; i < shard_count; ++i) {
    const uint64_t memory = rng.Chance(0.3F) ? 0 : 1 + rng.Below(200);
    input.shards.push_back(Shard(static_cast<uint32_t>(2 * i), memory));
  }
  return input;
}

// Every promise of the header, over one input.
void CheckPlan(const PlanInput& input, const absl::StatusOr<Placement>& plan) {
  const uint64_t pairs = uint64_t{input.shape.moe_layer_count()} * input.shape.expert_count;
  uint64_t capacity = 0;
  for (const ShardInfo& shard : input.shards) {
    capacity +=
        shard.memory_bytes == 0 ? pairs : std::min(pairs, shard.memory_bytes / input.expert_bytes);
  }
  if (capacity < pairs) {
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
    return;
  }
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(ValidatePlacement(*plan).ok());
  EXPECT_EQ(*plan, *PlanPlacement(input));
  const uint64_t copies = std::min<uint64_t>(input.replicas_wanted, input.shards.size());
  const bool unlimited = std::ranges::all_of(
      input.shards, [](const ShardInfo& shard) { return shard.memory_bytes == 0; });
  if (unlimited) {
    EXPECT_EQ(ReplicasMin(*plan), copies);
  }
  std::map<LayerId, std::pair<uint32_t, uint32_t>> spread;
  for (const auto& [key, count] : CountsOf(*plan)) {
    auto [entry, inserted] = spread.try_emplace(key.first, count, count);
    entry->second.first = std::min(entry->second.first, count);
    entry->second.second = std::max(entry->second.second, count);
  }
  for (const auto& [layer, range] : spread) {
    EXPECT_TRUE(!unlimited || range.second - range.first <= 1) << "layer " << layer.value();
  }
  for (const ShardInfo& shard : plan->shards) {
    const uint64_t held = PlacementDiff::OfShard(plan->replicas, shard.shard).size();
    EXPECT_TRUE(shard.memory_bytes == 0 || held * input.expert_bytes <= shard.memory_bytes);
  }
}

TEST(Planner, HoldsItsPromisesOverRandomInputsAndChanges) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Rng rng(seed);
    PlanInput input = RandomInput(rng);
    absl::StatusOr<Placement> plan = PlanPlacement(input);
    CheckPlan(input, plan);
    for (int change = 0; change < 4 && plan.ok(); ++change) {
      const Placement before = *plan;
      input.previous = &before;
      input.epoch = EpochId(input.epoch.value() + 1);
      if (rng.Chance(0.5F) && input.shards.size() > 1) {
        input.shards.erase(input.shards.begin() +
                           static_cast<ptrdiff_t>(rng.Below(input.shards.size())));
      } else {
        input.shards.push_back(Shard(static_cast<uint32_t>(101 + change), rng.Below(100)));
      }
      plan = PlanPlacement(input);
      CheckPlan(input, plan);
      if (plan.ok()) {
        EXPECT_EQ(*ApplyDiff(DiffOf(before, *plan), before), *plan);
      }
      input.previous = nullptr;
    }
  }
}

}  // namespace
}  // namespace switchyard
