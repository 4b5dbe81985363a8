#include "libs/control/placement_convert.h"

#include "gtest/gtest.h"

#include "libs/placement/planner.h"

namespace switchyard {
namespace {

Placement SomePlacement() {
  return PlanPlacement(
             {.epoch = EpochId(3),
              .model_digest = "d",
              .shape = {.first_moe_layer = 1, .layer_count = 4, .expert_count = 6},
              .shards = {{.shard = ShardId(0), .incarnation = Incarnation(5), .address = "a:1"},
                         {.shard = ShardId(2), .incarnation = Incarnation(6), .address = "b:1"}},
              .expert_bytes = 1,
              .replicas_wanted = 2})
      .value();
}

TEST(PlacementConvert, RoundTripIsTheIdentity) {
  const Placement placement = SomePlacement();
  const auto back = FromProto(ToProto(placement));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, placement);
}

TEST(PlacementConvert, RefusesIndicesAndShapesOutOfRange) {
  v1::Placement proto = ToProto(SomePlacement());
  proto.mutable_replicas(0)->add_experts(18);
  EXPECT_EQ(FromProto(proto).status().code(), absl::StatusCode::kInvalidArgument);
  proto = ToProto(SomePlacement());
  proto.mutable_shape()->set_layer_count(1);
  EXPECT_FALSE(FromProto(proto).ok());
  proto.mutable_shape()->set_layer_count(70000);
  EXPECT_FALSE(FromProto(proto).ok());
  proto = ToProto(SomePlacement());
  proto.clear_replicas();
  EXPECT_FALSE(FromProto(proto).ok());
}

TEST(FlatIndex, CountsFromTheFirstMoeLayer) {
  const ExpertShape shape{.first_moe_layer = 1, .layer_count = 4, .expert_count = 6};
  EXPECT_EQ(FlatIndexOf(shape, {.layer = LayerId(2), .expert = ExpertId(5)}), 11U);
  const auto which = FromFlatIndex(shape, 11);
  ASSERT_TRUE(which.ok());
  EXPECT_EQ(which->layer, LayerId(2));
  EXPECT_EQ(which->expert, ExpertId(5));
  EXPECT_FALSE(FromFlatIndex(shape, 18).ok());
}

}  // namespace
}  // namespace switchyard
