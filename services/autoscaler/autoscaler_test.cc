#include "services/autoscaler/autoscaler.h"

#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/placement/planner.h"

namespace switchyard {
namespace {

TEST(AutoscalerState, SurvivesARoundTrip) {
  const std::string path = testing::TempDir() + "/sy_autoscaler_state.json";
  const Placement placement =
      PlanPlacement({.epoch = EpochId(9),
                     .model_digest = "d",
                     .shape = {.first_moe_layer = 1, .layer_count = 3, .expert_count = 4},
                     .shards = {{.shard = ShardId(0),
                                 .incarnation = Incarnation(1ULL << 60),
                                 .address = "127.0.0.1:5"}},
                     .expert_bytes = 1})
          .value();
  ASSERT_TRUE(WriteState(path, placement).ok());
  const auto back = ReadState(path);
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_TRUE(back->has_value());
  EXPECT_EQ(**back, placement);
}

TEST(AutoscalerState, NoFileIsNoStateAndGarbageIsSaid) {
  EXPECT_FALSE(ReadState(testing::TempDir() + "/sy_no_such_state").value().has_value());
  EXPECT_FALSE(ReadState("").value().has_value());
  const std::string path = testing::TempDir() + "/sy_autoscaler_garbage.json";
  ASSERT_TRUE(WriteFileAtomically(path, "{\"epoch\": ").ok());
  EXPECT_EQ(ReadState(path).status().code(), absl::StatusCode::kDataLoss);
}

TEST(AutoscalerOptions, NamesWhatIsMissingOrOutOfRange) {
  config::v1::AutoscalerConfig config;
  config.mutable_common()->set_name("autoscaler");
  EXPECT_EQ(MessageOf(ReadOptions(config).status()), "config autoscaler.model_dir: required");
  config.set_model_dir("m");
  EXPECT_TRUE(ReadOptions(config).ok());
  config.set_replicas_wanted(99);
  EXPECT_EQ(MessageOf(ReadOptions(config).status()),
            "config autoscaler.replicas_wanted: 99 is not in [1, 16]");
}

}  // namespace
}  // namespace switchyard
