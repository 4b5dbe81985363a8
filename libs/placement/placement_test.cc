#include "libs/placement/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/status.h"
#include "libs/placement/route_table.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Replica At(uint16_t layer, uint16_t expert, uint32_t shard) {
  return {.layer = LayerId(layer), .expert = ExpertId(expert), .shard = ShardId(shard)};
}

// Layers 1 and 2 of 3 have two experts; shards 3 and 7.
Placement Small() {
  Placement placement{
      .epoch = EpochId(5),
      .model_digest = "digest",
      .shape = {.first_moe_layer = 1, .layer_count = 3, .expert_count = 2},
      .shards = {},
      .replicas = {At(1, 0, 3), At(1, 0, 7), At(1, 1, 7), At(2, 0, 3), At(2, 1, 3)}};
  for (const uint32_t shard : {3U, 7U}) {
    placement.shards.push_back({.shard = ShardId(shard),
                                .incarnation = Incarnation(1),
                                .address = "sim:x",
                                .memory_bytes = 0});
  }
  return placement;
}

TEST(ValidatePlacement, AcceptsAWholePlacement) { EXPECT_TRUE(ValidatePlacement(Small()).ok()); }

TEST(ValidatePlacement, NamesTheExpertWithoutReplica) {
  Placement placement = Small();
  placement.replicas.erase(placement.replicas.begin() + 2);
  EXPECT_EQ(MessageOf(ValidatePlacement(placement)), "placement: layer 1 expert 1 has no replica");
}

TEST(ValidatePlacement, RefusesBrokenOrderBoundsAndShards) {
  struct Case {
    std::string what;
    void (*change)(Placement&);
    std::string message;
  };

  const Case cases[] = {
      {"duplicate", [](Placement& p) { p.replicas[1] = p.replicas[0]; }, "out of order"},
      {"swapped", [](Placement& p) { std::swap(p.replicas[0], p.replicas[1]); }, "out of order"},
      {"dense layer", [](Placement& p) { p.replicas[0].layer = LayerId(0); },
       "MoE layers are [1, 3)"},
      {"layer", [](Placement& p) { p.replicas[4].layer = LayerId(3); }, "MoE layers are [1, 3)"},
      {"expert", [](Placement& p) { p.replicas[4].expert = ExpertId(2); }, "out of range"},
      {"shard", [](Placement& p) { p.replicas[4].shard = ShardId(4); }, "unknown shard 4"},
      {"shard order", [](Placement& p) { std::swap(p.shards[0], p.shards[1]); }, "must ascend"},
      {"shape", [](Placement& p) { p.shape.first_moe_layer = 9; }, "first MoE layer 9 of 3"},
      {"empty", [](Placement& p) { p.replicas.clear(); }, "layer 1 expert 0 has no replica"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    Placement placement = Small();
    test.change(placement);
    const absl::Status status = ValidatePlacement(placement);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(MessageOf(status), HasSubstr(test.message));
    EXPECT_FALSE(RouteTable::Build(placement).ok());
  }
}

TEST(RouteTable, ListsHoldersByIndexAscending) {
  const absl::StatusOr<RouteTable> routes = RouteTable::Build(Small());
  ASSERT_TRUE(routes.ok());
  EXPECT_EQ(routes->epoch(), EpochId(5));
  EXPECT_THAT(routes->HoldersOf(LayerId(1), ExpertId(0)), ElementsAre(0, 1));
  EXPECT_THAT(routes->HoldersOf(LayerId(1), ExpertId(1)), ElementsAre(1));
  EXPECT_THAT(routes->HoldersOf(LayerId(2), ExpertId(0)), ElementsAre(0));
  EXPECT_THAT(routes->HoldersOf(LayerId(2), ExpertId(1)), ElementsAre(0));
}

TEST(RouteTable, DenseModelHasNoHolders) {
  Placement placement = Small();
  placement.shape = {.first_moe_layer = 3, .layer_count = 3, .expert_count = 0};
  placement.replicas.clear();
  EXPECT_TRUE(RouteTable::Build(placement).ok());
}

}  // namespace
}  // namespace switchyard
