#include <atomic>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "libs/model/checkpoint.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

// Large enough that threads are started: 1 MiB of embedding and head.
TinyCheckpointOptions LargeVocabulary() {
  TinyCheckpointOptions options;
  options.spec.vocab_size = 4096;
  return options;
}

class LoadCancel : public testing::TestWithParam<uint32_t> {
 protected:
  const TinyCheckpoint tiny_{LargeVocabulary()};
  const absl::StatusOr<Checkpoint> checkpoint_ = Checkpoint::Open(tiny_.dir());
  std::atomic<bool> cancelled_ = false;
  uint32_t pieces_ = 0;

  // Cancels once `piece` pieces have been read.
  LoadOptions CancelAfter(uint32_t piece) {
    return {.threads = GetParam(),
            .observer =
                [this, piece](const LoadProgress&) {
                  if (++pieces_ == piece) {
                    cancelled_.store(true);
                  }
                },
            .cancelled = &cancelled_};
  }
};

TEST_P(LoadCancel, EndsBeforeTheFirstPieceWhenCancelledBefore) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  cancelled_.store(true);
  const LoadOptions options = CancelAfter(UINT32_MAX);
  EXPECT_EQ(checkpoint_->LoadRouterWeights(WeightChoice::kAsStored, options).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(
      checkpoint_->LoadExperts(AllExperts(checkpoint_->spec()), WeightChoice::kAsStored, options)
          .status()
          .code(),
      absl::StatusCode::kCancelled);
  EXPECT_EQ(pieces_, 0U);
}

TEST_P(LoadCancel, ReadsNoFurtherPieceOnceCancelled) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  EXPECT_EQ(checkpoint_->LoadRouterWeights(WeightChoice::kInt8, CancelAfter(3)).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(pieces_, 3U);
}

TEST_P(LoadCancel, ExpertsEndBetweenTwoTensors) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  EXPECT_EQ(
      checkpoint_
          ->LoadExperts(AllExperts(checkpoint_->spec()), WeightChoice::kAsStored, CancelAfter(5))
          .status()
          .code(),
      absl::StatusCode::kCancelled);
  EXPECT_EQ(pieces_, 5U);
}

TEST_P(LoadCancel, AFlagThatStaysDownChangesNothing) {
  ASSERT_TRUE(checkpoint_.ok()) << checkpoint_.status();
  const auto weights =
      checkpoint_->LoadRouterWeights(WeightChoice::kAsStored, CancelAfter(UINT32_MAX));
  EXPECT_TRUE(weights.ok()) << weights.status();
  EXPECT_GT(pieces_, 5U);
}

INSTANTIATE_TEST_SUITE_P(Threads, LoadCancel, testing::Values(0U, 2U));

}  // namespace
}  // namespace switchyard
