#include "libs/scheduler/scheduler.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/status.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const Instant kNow{std::chrono::seconds(5)};

// A prompt that shares nothing with those of other ids.
SequenceRequest Request(uint64_t id, uint32_t prompt_length, int32_t priority = 0) {
  return {.id = RequestId(id),
          .tokens = std::vector<TokenId>(prompt_length, static_cast<TokenId>(id)),
          .prompt_length = prompt_length,
          .priority = priority};
}

// Id, first position, count and logits of each chunk, as text.
std::vector<std::string> Chunks(const StepPlan& plan) {
  std::vector<std::string> chunks;
  for (const Chunk& chunk : plan.chunks) {
    constexpr const char* kNames[] = {"none", "last", "all"};
    chunks.push_back(fmt::format("{}:{}+{} {}", chunk.sequence->id, chunk.first_position,
                                 chunk.token_count, kNames[static_cast<size_t>(chunk.logits)]));
  }
  return chunks;
}

// One step whose sequences each get a token when their known ones are computed.
std::vector<std::string> Step(Scheduler& scheduler) {
  StepPlan plan;
  scheduler.Plan(kNow, plan);
  std::vector<std::string> chunks = Chunks(plan);
  scheduler.Commit(plan);
  for (const Chunk& chunk : plan.chunks) {
    if (chunk.sequence->remaining() == 0) {
      scheduler.Append(chunk.sequence->id, 9);
    }
  }
  return chunks;
}

TEST(Scheduler, ChunksAPromptAndAsksForLogitsAtItsEndOnly) {
  BlockPool pool(64);
  Scheduler scheduler({.step_tokens_max = 100, .chunk_tokens_max = 8, .block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 18), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+8 none"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:8+8 none"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:16+2 last"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:18+1 last"));
  EXPECT_EQ(scheduler.Find(RequestId(1))->started_at, kNow);
}

TEST(Scheduler, AsksForAllLogitsWhereAllAreWanted) {
  BlockPool pool(64);
  Scheduler scheduler({.chunk_tokens_max = 8, .block_tokens = 4}, pool);
  SequenceRequest request = Request(1, 10);
  request.all_logits = true;
  ASSERT_TRUE(scheduler.Add(std::move(request), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+8 all"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:8+2 all"));
}

TEST(Scheduler, PlansDecodesBeforePrefillsWithinTheTokenBudget) {
  BlockPool pool(64);
  Scheduler scheduler({.step_tokens_max = 6, .chunk_tokens_max = 6, .block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 2), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(2, 2), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+2 last", "2:0+2 last"));
  ASSERT_TRUE(scheduler.Add(Request(3, 20, -1), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:2+1 last", "2:2+1 last", "3:0+4 none"));
}

TEST(Scheduler, AdmitsByPriorityThenArrivalUpToTheSequenceLimit) {
  BlockPool pool(64);
  Scheduler scheduler({.sequences_max = 2, .block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 2, 1), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(2, 2, 0), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(3, 2, 0), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("2:0+2 last", "3:0+2 last"));
  EXPECT_EQ(scheduler.waiting_count(), 1U);
  scheduler.Finish(RequestId(2));
  EXPECT_THAT(Step(scheduler), ElementsAre("3:2+1 last", "1:0+2 last"));
}

TEST(Scheduler, NothingOvertakesTheHeadThatDoesNotFitYet) {
  BlockPool pool(4);
  Scheduler scheduler({.block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 8), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+8 last"));
  ASSERT_TRUE(scheduler.Add(Request(2, 12), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(3, 1), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:8+1 last"));
  scheduler.Finish(RequestId(1));
  EXPECT_THAT(Step(scheduler), ElementsAre("2:0+12 last", "3:0+1 last"));
}

TEST(Scheduler, PreemptsTheLatestOfLowestPriorityAndRecomputesWhatWasEvicted) {
  BlockPool pool(4);
  Scheduler scheduler({.block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 3), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(2, 3), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+3 last", "2:0+3 last"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:3+1 last", "2:3+1 last"));
  StepPlan plan;
  scheduler.Plan(kNow, plan);
  EXPECT_THAT(Chunks(plan), ElementsAre("1:4+1 last"));
  EXPECT_THAT(plan.preempted, ElementsAre(RequestId(2)));
  EXPECT_EQ(scheduler.Find(RequestId(2))->computed_count, 0U);
  EXPECT_EQ(scheduler.waiting_count(), 1U);
  scheduler.Commit(plan);
  scheduler.Finish(RequestId(1));
  EXPECT_THAT(Step(scheduler), ElementsAre("2:2+3 last")) << "its first block was not needed";
}

TEST(Scheduler, AVictimThatWasPlannedAlreadyLeavesThePlan) {
  BlockPool pool(4);
  Scheduler scheduler({.chunk_tokens_max = 4, .block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 3, 5), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+3 last"));
  // The urgent prompt fits what is free when admitted; then the decode takes a block of it.
  ASSERT_TRUE(scheduler.Add(Request(2, 4, 0), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:3+1 last", "2:0+4 last"));
  StepPlan plan;
  scheduler.Plan(kNow, plan);
  EXPECT_THAT(Chunks(plan), ElementsAre("2:4+1 last"));
  EXPECT_EQ(plan.token_count, 1U);
  EXPECT_EQ(plan.decode_count, 1U);
  EXPECT_THAT(plan.preempted, ElementsAre(RequestId(1)));
}

TEST(Scheduler, PreemptOnDemandFreesBlocksAndQueuesAgain) {
  BlockPool pool(8);
  Scheduler scheduler({.block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 3), kNow).ok());
  EXPECT_FALSE(scheduler.Preempt(RequestId(1)));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+3 last"));
  EXPECT_TRUE(scheduler.Preempt(RequestId(1)));
  EXPECT_EQ(scheduler.free_block_count(), 8U);
  EXPECT_THAT(Step(scheduler), ElementsAre("1:2+2 last"));
}

TEST(Scheduler, CancelFreesBlocksAtOnceInAnyState) {
  BlockPool pool(8);
  Scheduler scheduler({.sequences_max = 1, .block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 3), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(2, 3), kNow).ok());
  Step(scheduler);
  EXPECT_TRUE(scheduler.Cancel(RequestId(2)));
  EXPECT_TRUE(scheduler.Cancel(RequestId(1)));
  EXPECT_FALSE(scheduler.Cancel(RequestId(1)));
  EXPECT_EQ(scheduler.free_block_count(), 8U);
  EXPECT_THAT(Step(scheduler), IsEmpty());
}

TEST(Scheduler, TakesThePrefillsOfManyShortPromptsIntoOneStep) {
  BlockPool pool(256);
  Scheduler scheduler({.step_tokens_max = 64, .chunk_tokens_max = 16, .block_tokens = 4}, pool);
  for (uint64_t id = 1; id <= 12; ++id) {
    ASSERT_TRUE(scheduler.Add(Request(id, 6), kNow).ok());
  }
  const std::vector<std::string> first = Step(scheduler);
  ASSERT_EQ(first.size(), 11U);
  EXPECT_EQ(first[9], "10:0+6 last");
  EXPECT_EQ(first[10], "11:0+4 none");
  EXPECT_EQ(scheduler.waiting_count(), 1U);
}

TEST(Scheduler, BoundsThePrefillsOfAStepWhileStreamsRun) {
  BlockPool pool(256);
  Scheduler scheduler({.step_tokens_max = 64,
                       .chunk_tokens_max = 32,
                       .prefill_tokens_with_decodes_max = 10,
                       .block_tokens = 4},
                      pool);
  ASSERT_TRUE(scheduler.Add(Request(1, 3), kNow).ok());
  Step(scheduler);
  ASSERT_TRUE(scheduler.Add(Request(2, 24), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(3, 5), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Request(4, 40), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:3+1 last", "2:0+10 none"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:4+1 last", "2:10+10 none"));
  // The first to come ends first; what is left of the bound goes to the next.
  EXPECT_THAT(Step(scheduler),
              ElementsAre("1:5+1 last", "2:20+4 last", "3:0+5 last", "4:0+1 none"));
  scheduler.Finish(RequestId(1));
  scheduler.Finish(RequestId(2));
  scheduler.Finish(RequestId(3));
  EXPECT_THAT(Step(scheduler), ElementsAre("4:1+32 none"));
}

SequenceRequest Numbered(uint64_t id, uint32_t prompt_length) {
  SequenceRequest request = Request(id, prompt_length);
  for (uint32_t i = 0; i < prompt_length; ++i) {
    request.tokens[i] = i;
  }
  return request;
}

TEST(Scheduler, StartsAfterTheFullBlocksThatAreCached) {
  BlockPool pool(64);
  Scheduler scheduler({.block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 10), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+10 last"));
  EXPECT_EQ(scheduler.Find(RequestId(1))->cached_prompt_tokens, 0U);
  ASSERT_TRUE(scheduler.Add(Numbered(2, 13), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:10+1 last", "2:8+5 last"));
  EXPECT_EQ(scheduler.Find(RequestId(2))->cached_prompt_tokens, 8U);
  EXPECT_EQ(scheduler.Find(RequestId(2))->blocks[1], scheduler.Find(RequestId(1))->blocks[1]);
  // Held by two, counted once: three blocks of the first, and two more of the second.
  EXPECT_EQ(scheduler.free_block_count(), 64U - 5U);
  scheduler.Finish(RequestId(1));
  scheduler.Finish(RequestId(2));
  EXPECT_EQ(scheduler.free_block_count(), 64U);
  EXPECT_EQ(scheduler.cached_block_count(), 3U);
  EXPECT_EQ(scheduler.prefix_stats().queried_tokens, 23U);
  EXPECT_EQ(scheduler.prefix_stats().hit_tokens, 8U);
}

TEST(Scheduler, AlwaysComputesTheLastPositionOfAPrompt) {
  BlockPool pool(64);
  Scheduler scheduler({.block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 8), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+8 last"));
  scheduler.Finish(RequestId(1));
  ASSERT_TRUE(scheduler.Add(Numbered(2, 8), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("2:4+4 last"));
  EXPECT_EQ(scheduler.cached_block_count(), 2U) << "the block computed again is not kept twice";
  EXPECT_EQ(scheduler.free_block_count(), 62U);
}

TEST(Scheduler, ComputesEveryPositionWhereAllAreWanted) {
  BlockPool pool(64);
  Scheduler scheduler({.block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 9), kNow).ok());
  Step(scheduler);
  SequenceRequest request = Numbered(2, 9);
  request.skip_cached = true;
  ASSERT_TRUE(scheduler.Add(std::move(request), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("1:9+1 last", "2:0+9 last"));
  EXPECT_EQ(scheduler.prefix_stats().queried_tokens, 9U);
}

TEST(Scheduler, SharesNothingBetweenScopesFormsOrWithTheCacheOff) {
  BlockPool pool(64);
  Scheduler scheduler({.block_tokens = 4}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 9), kNow).ok());
  Step(scheduler);
  scheduler.Finish(RequestId(1));
  SequenceRequest other_scope = Numbered(2, 9);
  other_scope.prefix_scope[31] = 1;
  ASSERT_TRUE(scheduler.Add(std::move(other_scope), kNow).ok());
  SequenceRequest other_form = Numbered(3, 9);
  other_form.prompt_length = 6;  // The others were generated before the stream moved here.
  ASSERT_TRUE(scheduler.Add(std::move(other_form), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("2:0+9 last", "3:4+5 last"));
  EXPECT_EQ(scheduler.Find(RequestId(3))->cached_prompt_tokens, 4U);

  BlockPool other_pool(64);
  Scheduler off({.block_tokens = 4, .prefix_cache = false}, other_pool);
  for (uint64_t id = 1; id <= 2; ++id) {
    ASSERT_TRUE(off.Add(Numbered(id, 9), kNow).ok());
    Step(off);
    off.Finish(RequestId(id));
  }
  EXPECT_EQ(off.prefix_stats().hit_tokens + off.prefix_stats().queried_tokens, 0U);
  EXPECT_EQ(other_pool.free_count(), 64U);
}

TEST(Scheduler, APreemptedSequenceGoesOnAfterItsCachedBlocks) {
  BlockPool pool(8);
  Scheduler scheduler({.block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 5), kNow).ok());
  Step(scheduler);
  EXPECT_THAT(Step(scheduler), ElementsAre("1:5+1 last"));
  EXPECT_TRUE(scheduler.Preempt(RequestId(1)));
  EXPECT_EQ(scheduler.free_block_count(), 8U);
  // The third block holds a prompt position and a generated one.
  EXPECT_THAT(Step(scheduler), ElementsAre("1:6+1 last"));
  EXPECT_EQ(scheduler.Find(RequestId(1))->cached_prompt_tokens, 0U) << "of the first start only";
}

TEST(Scheduler, EvictsCachedBlocksWhenOthersNeedTheRoom) {
  BlockPool pool(4);
  Scheduler scheduler({.block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 7), kNow).ok());
  Step(scheduler);
  scheduler.Finish(RequestId(1));
  EXPECT_EQ(scheduler.cached_block_count(), 3U);
  ASSERT_TRUE(scheduler.Add(Request(2, 5), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("2:0+5 last"));
  EXPECT_EQ(scheduler.prefix_stats().evicted_blocks, 2U);
  scheduler.Finish(RequestId(2));
  ASSERT_TRUE(scheduler.Add(Numbered(3, 7), kNow).ok());
  EXPECT_THAT(Step(scheduler), ElementsAre("3:2+5 last")) << "the first block was evicted last";
}

TEST(Scheduler, CountsCachedBlocksThatNobodyHoldsAsRoomThatIsTaken) {
  BlockPool pool(6);
  Scheduler scheduler({.block_tokens = 2}, pool);
  ASSERT_TRUE(scheduler.Add(Numbered(1, 7), kNow).ok());
  Step(scheduler);
  scheduler.Finish(RequestId(1));
  ASSERT_TRUE(scheduler.Add(Request(2, 5), kNow).ok());
  ASSERT_TRUE(scheduler.Add(Numbered(3, 9), kNow).ok());
  StepPlan plan;
  scheduler.Plan(kNow, plan);
  EXPECT_THAT(Chunks(plan), ElementsAre("2:0+5 last"));
  EXPECT_THAT(plan.preempted, IsEmpty()) << "the other was not started in vain";
  scheduler.Commit(plan);
  scheduler.Finish(RequestId(2));
  EXPECT_THAT(Step(scheduler), ElementsAre("3:6+3 last"));
}

TEST(Scheduler, RefusesWhatCanNeverRun) {
  BlockPool pool(4);
  Scheduler scheduler({.waiting_max = 1, .block_tokens = 2}, pool);
  EXPECT_EQ(scheduler.sequence_tokens_max(), 8U);
  EXPECT_EQ(scheduler.Add(Request(1, 9), kNow).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(scheduler.Add(Request(1, 0), kNow).code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(scheduler.Add(Request(1, 8), kNow).ok());
  EXPECT_EQ(scheduler.Add(Request(2, 1), kNow).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(scheduler.Add(Request(1, 1), kNow).code(), absl::StatusCode::kInvalidArgument);
}

TEST(Scheduler, EveryRunningSequenceGetsARowEvenWhenTheBudgetIsSmallerThanTheLimit) {
  BlockPool pool(64);
  Scheduler scheduler({.step_tokens_max = 2, .sequences_max = 8, .block_tokens = 4}, pool);
  for (uint64_t id = 1; id <= 4; ++id) {
    ASSERT_TRUE(scheduler.Add(Request(id, 1), kNow).ok());
  }
  EXPECT_THAT(Step(scheduler), ElementsAre("1:0+1 last", "2:0+1 last"));
  EXPECT_THAT(Step(scheduler), ElementsAre("1:1+1 last", "2:1+1 last"));
  EXPECT_EQ(scheduler.waiting_count(), 2U);
}

}  // namespace
}  // namespace switchyard
