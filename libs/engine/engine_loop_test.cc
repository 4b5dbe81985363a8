#include "libs/engine/engine_loop.h"

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/engine/testing/inproc_cluster.h"
#include "libs/model/reference_model.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

EngineOptions SmallEngine() {
  return {.scheduler = {.step_tokens_max = 64, .chunk_tokens_max = 16, .block_tokens = 8},
          .cache_blocks = 32,
          .cache_dtype = Dtype::kF32};
}

GenerationRequest Greedy(uint64_t id, std::vector<TokenId> prompt, uint32_t max_tokens) {
  return {.id = RequestId(id),
          .prompt = std::move(prompt),
          .sampling = {.temperature = 0.0F},
          .max_tokens = max_tokens};
}

class EngineLoopTest : public testing::Test {
 protected:
  EngineLoopTest() : cluster_({.model_dir = model_.dir(), .shard_count = 2}) {}

  // The only end of a request that must have ended.
  GenerationEnd EndOf(uint64_t id) {
    const RecordingSink::Record& record = cluster_.sink().Of(RequestId(id));
    EXPECT_THAT(record.ends, SizeIs(1));
    EXPECT_EQ(record.tokens_after_end, 0);
    return record.ends.empty() ? GenerationEnd{} : record.ends.front();
  }

  std::vector<TokenId> IdsOf(uint64_t id) { return cluster_.sink().Of(RequestId(id)).ids(); }

  std::vector<TokenId> Run(GenerationRequest request) {
    const uint64_t id = request.id.value();
    EXPECT_TRUE(cluster_.engine().Post(std::move(request)).ok());
    EXPECT_TRUE(cluster_.RunUntilIdle());
    return IdsOf(id);
  }

  void ExpectNothingHeld() {
    const EngineStatus status = cluster_.engine().status();
    EXPECT_EQ(status.free_blocks, status.total_blocks);
    EXPECT_EQ(status.running + status.waiting, 0U);
    EXPECT_EQ(cluster_.engine().live_count(), 0U);
    EXPECT_EQ(cluster_.dispatcher().usage().tickets, 0U);
  }

  TinyCheckpoint model_;
  InprocCluster cluster_;
};

TEST_F(EngineLoopTest, GreedyTokensAreThoseOfTheReferenceModel) {
  cluster_.StartEngine(SmallEngine());
  const std::vector<TokenId> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3};
  const std::vector<TokenId> ids = Run(Greedy(1, prompt, 12));
  ASSERT_THAT(ids, SizeIs(12));
  EXPECT_EQ(EndOf(1).reason, FinishReason::kLength);
  ExpectNothingHeld();

  const absl::StatusOr<ReferenceModel> reference = ReferenceModel::Load(cluster_.checkpoint());
  ASSERT_TRUE(reference.ok()) << reference.status();
  std::vector<TokenId> known = prompt;
  known.insert(known.end(), ids.begin(), ids.end());
  const ReferenceOutput output = reference->Run(known);
  const size_t vocab = reference->spec().vocab_size;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = std::span(output.logits).subspan((prompt.size() + i - 1) * vocab, vocab);
    const auto best = std::max_element(row.begin(), row.end());
    EXPECT_NEAR(row[ids[i]], *best, 1e-3) << "token " << i;
  }
}

TEST_F(EngineLoopTest, StopTokenIsSentAndEndsTheStream) {
  cluster_.StartEngine(SmallEngine());
  const std::vector<TokenId> free_run = Run(Greedy(1, {5, 6, 7}, 20));
  GenerationRequest request = Greedy(2, {5, 6, 7}, 20);
  request.stop_tokens = {free_run[4]};
  const auto first = std::find(free_run.begin(), free_run.end(), free_run[4]);
  EXPECT_THAT(Run(request), ElementsAreArray(free_run.begin(), first + 1));
  EXPECT_EQ(EndOf(2).reason, FinishReason::kStop);

  request.id = RequestId(3);
  request.min_tokens = 8;
  const std::vector<TokenId> longer = Run(request);
  ASSERT_GE(longer.size(), 8U);
  EXPECT_EQ(std::count(longer.begin(), longer.begin() + 8, free_run[4]), 0);
}

TEST_F(EngineLoopTest, AStreamThatMovedHereGoesOnWithTheSameTokens) {
  cluster_.StartEngine(SmallEngine());
  GenerationRequest request = Greedy(1, {9, 8, 7, 6}, 16);
  request.sampling = {.temperature = 1.0F, .seed = 11};
  const std::vector<TokenId> whole = Run(request);
  ASSERT_THAT(whole, SizeIs(16));
  request.id = RequestId(2);
  request.resumed.assign(whole.begin(), whole.begin() + 5);
  EXPECT_THAT(Run(request), ElementsAreArray(whole.begin() + 5, whole.end()));
  request.id = RequestId(3);
  request.resumed = whole;
  EXPECT_THAT(Run(request), IsEmpty());
  EXPECT_EQ(EndOf(3).reason, FinishReason::kLength);
  ExpectNothingHeld();
}

TEST_F(EngineLoopTest, ScoresThePromptOnceInOrderAndDrawsNothingForNoTokens) {
  cluster_.StartEngine(SmallEngine());
  GenerationRequest request = Greedy(1, std::vector<TokenId>(20, 3), 0);
  for (size_t i = 0; i < request.prompt.size(); ++i) {
    request.prompt[i] = static_cast<TokenId>((i * 7) % 64);
  }
  request.prompt_logprobs = true;
  request.sampling.logprobs = 2;
  EXPECT_THAT(Run(request), IsEmpty());
  const RecordingSink::Record& record = cluster_.sink().Of(RequestId(1));
  ASSERT_THAT(record.prompt, SizeIs(19));
  for (size_t i = 0; i < record.prompt.size(); ++i) {
    EXPECT_EQ(record.prompt[i].token, request.prompt[i + 1]);
    EXPECT_LT(record.prompt[i].logprob, 0.0F);
    EXPECT_THAT(record.prompt[i].top, SizeIs(2));
  }
  EXPECT_EQ(EndOf(1).reason, FinishReason::kLength);
}

TEST_F(EngineLoopTest, ReportsAndCountsWhatThePrefixCacheSpared) {
  cluster_.StartEngine(SmallEngine());
  const std::vector<TokenId> prompt = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3};
  const std::vector<TokenId> first = Run(Greedy(1, prompt, 4));
  EXPECT_EQ(EndOf(1).cached_prompt_tokens, 0U);
  EXPECT_EQ(Run(Greedy(2, prompt, 4)), first);
  EXPECT_EQ(EndOf(2).cached_prompt_tokens, 16U);
  GenerationRequest other = Greedy(3, prompt, 4);
  other.prefix_scope[0] = 1;
  EXPECT_EQ(Run(other), first);
  EXPECT_EQ(EndOf(3).cached_prompt_tokens, 0U);
  ExpectNothingHeld();
  const std::string metrics = cluster_.registry().Render();
  EXPECT_THAT(metrics, HasSubstr("switchyard_prefix_cache_queries_tokens_total 54\n"));
  EXPECT_THAT(metrics, HasSubstr("switchyard_prefix_cache_hits_tokens_total 16\n"));
  EXPECT_THAT(metrics, HasSubstr("switchyard_prefix_cache_evicted_blocks_total 0\n"));
  EXPECT_THAT(metrics, HasSubstr("switchyard_prefix_cache_blocks 4\n"));
  EXPECT_THAT(metrics, HasSubstr("switchyard_kv_cache_usage_ratio 0\n"));
}

TEST_F(EngineLoopTest, ScoresAPromptAlsoWhenItIsInThePrefixCache) {
  cluster_.StartEngine(SmallEngine());
  const std::vector<TokenId> prompt(20, 3);
  Run(Greedy(1, prompt, 1));
  GenerationRequest request = Greedy(2, prompt, 1);
  request.prompt_logprobs = true;
  Run(request);
  EXPECT_THAT(cluster_.sink().Of(RequestId(2)).prompt, SizeIs(19));
  EXPECT_EQ(EndOf(2).cached_prompt_tokens, 0U);
}

TEST_F(EngineLoopTest, AContextThatIsFullEndsTheStream) {
  EngineOptions options = SmallEngine();
  options.cache_blocks = 3;
  EngineLoop& engine = cluster_.StartEngine(options);
  EXPECT_EQ(engine.context_tokens_max(), 24U);
  EXPECT_THAT(Run(Greedy(1, {1, 2, 3, 4}, 100)), SizeIs(20));
  EXPECT_EQ(EndOf(1).reason, FinishReason::kLength);
  EXPECT_EQ(engine.Post(Greedy(2, std::vector<TokenId>(24, 1), 5)).code(),
            absl::StatusCode::kInvalidArgument);
  ExpectNothingHeld();
}

TEST_F(EngineLoopTest, CancelEndsARequestWithinOneStepInAnyState) {
  EngineOptions options = SmallEngine();
  options.scheduler.sequences_max = 1;
  EngineLoop& engine = cluster_.StartEngine(options);
  ASSERT_TRUE(engine.Post(Greedy(1, {1, 2, 3}, 200)).ok());
  ASSERT_TRUE(engine.Post(Greedy(2, {1, 2, 3}, 200)).ok());
  ASSERT_TRUE(cluster_.RunUntil([this] { return IdsOf(1).size() >= 3; }));
  ASSERT_TRUE(engine.Post(Greedy(3, {1, 2, 3}, 200)).ok());
  for (uint64_t id = 1; id <= 3; ++id) {
    engine.Cancel(RequestId(id));
  }
  engine.RunOnce(SteadyClock().Now());
  for (uint64_t id = 1; id <= 3; ++id) {
    EXPECT_EQ(EndOf(id).status.code(), absl::StatusCode::kCancelled);
  }
  ExpectNothingHeld();
}

TEST_F(EngineLoopTest, RefusesMoreLiveRequestsThanItsLimits) {
  EngineOptions options = SmallEngine();
  options.scheduler.sequences_max = 1;
  options.scheduler.waiting_max = 1;
  EngineLoop& engine = cluster_.StartEngine(options);
  EXPECT_TRUE(engine.Post(Greedy(1, {1}, 2)).ok());
  EXPECT_TRUE(engine.Post(Greedy(2, {1}, 2)).ok());
  EXPECT_EQ(engine.Post(Greedy(3, {1}, 2)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(cluster_.RunUntilIdle());
  EXPECT_TRUE(EndOf(1).status.ok());
  EXPECT_TRUE(EndOf(2).status.ok());
}

TEST_F(EngineLoopTest, ADeadlineThatPassesEndsTheRequest) {
  EngineLoop& engine = cluster_.StartEngine(SmallEngine());
  const Instant now = SteadyClock().Now();
  GenerationRequest request = Greedy(1, {1, 2}, 200);
  request.deadline = now + std::chrono::hours(1);
  ASSERT_TRUE(engine.Post(request).ok());
  engine.RunOnce(now);
  EXPECT_THAT(cluster_.sink().Of(RequestId(1)).ends, IsEmpty());
  engine.RunOnce(now + std::chrono::hours(2));
  EXPECT_EQ(EndOf(1).status.code(), absl::StatusCode::kDeadlineExceeded);
  ExpectNothingHeld();
}

TEST_F(EngineLoopTest, PreemptionForBlocksChangesNoToken) {
  std::vector<std::vector<TokenId>> alone;
  cluster_.StartEngine(SmallEngine());
  for (uint64_t id = 1; id <= 6; ++id) {
    alone.push_back(Run(Greedy(id, std::vector<TokenId>(5, static_cast<TokenId>(id)), 20)));
  }
  EngineOptions options = SmallEngine();
  options.cache_blocks = 8;  // Two streams of 25 tokens fit; six start.
  EngineLoop& engine = cluster_.StartEngine(options);
  for (uint64_t id = 1; id <= 6; ++id) {
    ASSERT_TRUE(
        engine.Post(Greedy(id, std::vector<TokenId>(5, static_cast<TokenId>(id)), 20)).ok());
  }
  ASSERT_TRUE(cluster_.RunUntilIdle());
  for (uint64_t id = 1; id <= 6; ++id) {
    EXPECT_EQ(IdsOf(id), alone[id - 1]) << "request " << id;
  }
  EXPECT_NE(cluster_.registry().Render().find("switchyard_preemptions_total"), std::string::npos);
  ExpectNothingHeld();
}

TEST_F(EngineLoopTest, RunsOnItsOwnThreadAndEndsOpenRequestsWhenStopped) {
  EngineLoop& engine = cluster_.StartEngine(SmallEngine());
  std::thread step([&engine] { engine.Run(); });
  ASSERT_TRUE(engine.Post(Greedy(1, {1, 2}, 100)).ok());
  ASSERT_TRUE(engine.Post(Greedy(2, {1, 2}, 100)).ok());
  engine.Cancel(RequestId(2));
  engine.Stop();
  step.join();
  const absl::StatusCode first = EndOf(1).status.code();
  EXPECT_TRUE(first == absl::StatusCode::kOk || first == absl::StatusCode::kUnavailable);
  EXPECT_FALSE(EndOf(2).status.ok());
  EXPECT_EQ(engine.Post(Greedy(3, {1}, 1)).code(), absl::StatusCode::kUnavailable);
  ExpectNothingHeld();
}

}  // namespace
}  // namespace switchyard
