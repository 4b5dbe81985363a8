#include "libs/engine/micro_batch.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SplitPlanTest : public testing::Test {
 protected:
  SplitPlanTest() {
    decode_.id = RequestId(1);
    decode_.tokens = {10, 11, 12};
    decode_.prompt_length = 2;
    decode_.blocks = {BlockId(5)};
    prefill_.id = RequestId(2);
    prefill_.tokens = {20, 21, 22, 23};
    prefill_.prompt_length = 3;
    plan_.chunks = {
        {.sequence = &decode_, .first_position = 2, .token_count = 1, .logits = LogitsNeed::kLast},
        {.sequence = &prefill_, .first_position = 1, .token_count = 3, .logits = LogitsNeed::kAll}};
    plan_.token_count = 4;
  }

  Sequence decode_;
  Sequence prefill_;
  StepPlan plan_;
  std::vector<MicroBatch> batches_;
};

TEST_F(SplitPlanTest, LaysRowsOutInPlanOrderWithTheirForm) {
  const auto batches = SplitPlan(plan_, {.micro_batches = 1}, batches_);
  ASSERT_EQ(batches.size(), 1U);
  EXPECT_THAT(batches[0].tokens, ElementsAre(12, 21, 22, 23));
  EXPECT_THAT(batches[0].logits_rows, ElementsAre(0, 1, 2, 3));
  std::vector<bool> expanded;
  for (const AttentionRow& row : batches[0].rows) {
    expanded.push_back(row.expanded);
  }
  EXPECT_THAT(expanded, ElementsAre(false, true, true, false));
  EXPECT_EQ(batches[0].rows[0].blocks.front(), BlockId(5));
  EXPECT_EQ(batches[0].rows[3].position, 3U);
  EXPECT_EQ(batches[0].origins[3].request, RequestId(2));
}

TEST_F(SplitPlanTest, HalvesTheRowsAlsoInsideAChunk) {
  const auto batches = SplitPlan(plan_, {.micro_batches = 2, .rows_min = 2}, batches_);
  ASSERT_EQ(batches.size(), 2U);
  EXPECT_THAT(batches[0].tokens, ElementsAre(12, 21));
  EXPECT_THAT(batches[1].tokens, ElementsAre(22, 23));
  EXPECT_THAT(batches[1].logits_rows, ElementsAre(0, 1));
}

TEST_F(SplitPlanTest, LeavesASmallStepWholeAndClearsReusedBatches) {
  SplitPlan(plan_, {.micro_batches = 2, .rows_min = 2}, batches_);
  plan_.chunks[1].logits = LogitsNeed::kNone;
  const auto batches = SplitPlan(plan_, {.micro_batches = 2, .rows_min = 5}, batches_);
  ASSERT_EQ(batches.size(), 1U);
  EXPECT_THAT(batches[0].tokens, ElementsAre(12, 21, 22, 23));
  EXPECT_THAT(batches[0].logits_rows, ElementsAre(0));
  EXPECT_THAT(batches_[1].tokens, IsEmpty());
}

}  // namespace
}  // namespace switchyard
