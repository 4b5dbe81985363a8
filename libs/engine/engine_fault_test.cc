// What happens to requests when experts cannot be reached.

#include <cstdint>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/engine/engine_loop.h"
#include "libs/engine/testing/inproc_cluster.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr Duration kUnreadyMax = std::chrono::seconds(30);

EngineOptions FaultyEngine() {
  return {.scheduler = {.chunk_tokens_max = 16, .block_tokens = 8},
          .cache_blocks = 32,
          .cache_dtype = Dtype::kF32,
          .unready_wait_max = kUnreadyMax};
}

GenerationRequest Stream(uint64_t id) {
  return {.id = RequestId(id),
          .prompt = {4, 5, 6, 7},
          .sampling = {.temperature = 0.0F},
          .max_tokens = 60};
}

class EngineFaultTest : public testing::Test {
 protected:
  EngineFaultTest() : cluster_({.model_dir = model_.dir(), .shard_count = 2}) {}

  const RecordingSink::Record& Of(uint64_t id) { return cluster_.sink().Of(RequestId(id)); }

  void ExpectNothingHeld() {
    const EngineStatus status = cluster_.engine().status();
    EXPECT_EQ(status.free_blocks, status.total_blocks);
    EXPECT_EQ(cluster_.engine().live_count(), 0U);
    EXPECT_EQ(cluster_.dispatcher().usage().tickets, 0U);
  }

  TinyCheckpoint model_;
  InprocCluster cluster_;
};

TEST_F(EngineFaultTest, ALostShardEndsNoMoreThanTheStepsRequestsAndTheEngineComesBack) {
  EngineLoop& engine = cluster_.StartEngine(FaultyEngine());
  ASSERT_TRUE(engine.Post(Stream(1)).ok());
  ASSERT_TRUE(cluster_.RunUntil([this] { return Of(1).tokens.size() >= 3; }));
  cluster_.StopShard(1);
  ASSERT_TRUE(cluster_.RunUntil([this] { return !cluster_.engine().status().ready.ok(); }));
  ASSERT_TRUE(engine.Post(Stream(2)).ok());
  engine.RunOnce(SteadyClock().Now());
  EXPECT_THAT(Of(2).ends, IsEmpty());
  EXPECT_THAT(Of(2).tokens, IsEmpty());

  cluster_.RestartShard(1);
  cluster_.PublishPlacement();
  ASSERT_TRUE(cluster_.RunUntilIdle());
  ASSERT_THAT(Of(1).ends, SizeIs(1));
  if (!Of(1).ends[0].status.ok()) {
    EXPECT_EQ(Of(1).ends[0].status.code(), absl::StatusCode::kUnavailable);
  }
  ASSERT_THAT(Of(2).ends, SizeIs(1));
  EXPECT_TRUE(Of(2).ends[0].status.ok()) << Of(2).ends[0].status;
  EXPECT_THAT(Of(2).tokens, SizeIs(60));
  EXPECT_TRUE(engine.status().ready.ok());
  ExpectNothingHeld();
}

TEST_F(EngineFaultTest, WithoutRoutesRequestsWaitForABoundedTime) {
  EngineLoop& engine = cluster_.StartEngine(FaultyEngine());
  cluster_.StopShard(0);
  ASSERT_TRUE(cluster_.RunUntil([this] { return !cluster_.engine().status().ready.ok(); }));
  ASSERT_TRUE(engine.Post(Stream(1)).ok());
  const Instant now = SteadyClock().Now();
  engine.RunOnce(now);
  engine.RunOnce(now + kUnreadyMax - std::chrono::seconds(1));
  EXPECT_THAT(Of(1).ends, IsEmpty());
  engine.RunOnce(now + kUnreadyMax);
  ASSERT_THAT(Of(1).ends, SizeIs(1));
  EXPECT_EQ(Of(1).ends[0].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(Of(1).ends[0].status.message().empty());
  ExpectNothingHeld();
}

TEST_F(EngineFaultTest, ANewPlacementUnderLoadChangesNoToken) {
  cluster_.StartEngine(FaultyEngine());
  ASSERT_TRUE(cluster_.engine().Post(Stream(1)).ok());
  ASSERT_TRUE(cluster_.RunUntilIdle());
  const std::vector<TokenId> alone = Of(1).ids();
  ASSERT_TRUE(cluster_.engine().Post(Stream(2)).ok());
  for (int epochs = 0; epochs < 5; ++epochs) {
    const size_t seen = Of(2).tokens.size();
    cluster_.PublishPlacement();
    ASSERT_TRUE(cluster_.RunUntil([&] { return Of(2).tokens.size() >= seen + 5; }));
  }
  ASSERT_TRUE(cluster_.RunUntilIdle());
  EXPECT_EQ(Of(2).ids(), alone);
}

}  // namespace
}  // namespace switchyard
