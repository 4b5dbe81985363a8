#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kernels/compute_pool.h"
#include "libs/kernels/kernels.h"

namespace switchyard {
namespace {

TEST(ComputePool, RunsEveryTileOnceOnAnyNumberOfThreads) {
  for (const uint32_t thread_count : {1U, 2U, 3U, 5U}) {
    ComputePool pool(thread_count);
    EXPECT_EQ(pool.thread_count(), thread_count);
    for (uint32_t round = 0; round < 200; ++round) {
      const uint32_t tile_count = round % 17;
      std::vector<std::atomic<int>> counts(tile_count);
      pool.Run(tile_count, [&](uint32_t tile) { ++counts[tile]; });
      for (const std::atomic<int>& count : counts) {
        ASSERT_EQ(count.load(), 1);
      }
    }
  }
}

TEST(ComputePool, WritesOfTilesAreVisibleAfterRun) {
  ComputePool pool(3);
  std::vector<uint64_t> values(1000);
  for (uint64_t round = 1; round <= 50; ++round) {
    pool.Run(1000, [&](uint32_t tile) { values[tile] += tile * round; });
  }
  for (uint64_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(values[i], i * 1275);
  }
}

std::vector<float> RandomVector(Rng& rng, size_t count) {
  std::vector<float> values(count);
  for (float& value : values) {
    value = 2.0F * rng.Unit() - 1.0F;
  }
  return values;
}

TEST(ParallelGemm, GivesTheBitsOfOneThread) {
  Rng rng(31);
  const uint32_t depth = 300;
  const uint32_t outputs = 301;
  const std::vector<float> x = RandomVector(rng, size_t{7} * depth);
  const std::vector<float> w = RandomVector(rng, size_t{outputs} * depth);
  std::vector<float> want(size_t{7} * outputs);
  GemmArgs args{.x = x.data(),
                .x_stride = depth,
                .row_count = 7,
                .w = {.data = w.data(), .dtype = Dtype::kF32, .rows = outputs, .columns = depth},
                .y = want.data(),
                .y_stride = outputs,
                .column_begin = 3,
                .column_end = outputs};
  BestKernels().gemm(args);
  for (const uint32_t thread_count : {1U, 2U, 3U, 8U}) {
    ComputePool pool(thread_count);
    std::vector<float> got(want.size());
    args.y = got.data();
    ParallelGemm(BestKernels(), pool, args);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
  }
}

struct Expert {
  std::vector<float> gate;
  std::vector<float> up;
  std::vector<float> down;
};

MatrixView ViewOf(const std::vector<float>& data, uint32_t columns) {
  return {.data = data.data(),
          .dtype = Dtype::kF32,
          .rows = static_cast<uint32_t>(data.size() / columns),
          .columns = columns};
}

double DotOf(const float* a, const double* b, uint32_t count) {
  double sum = 0.0;
  for (uint32_t i = 0; i < count; ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

class GroupedFfnTest : public testing::Test {
 protected:
  static constexpr uint32_t kHidden = 190;
  static constexpr uint32_t kIntermediate = 175;

  GroupedFfnTest() {
    Rng rng(32);
    // Rows per expert, an inactive expert among them.
    uint32_t row = 0;
    for (const uint32_t count : {5U, 1U, 0U, 17U, 2U}) {
      experts_.push_back({.gate = RandomVector(rng, kIntermediate * kHidden),
                          .up = RandomVector(rng, kIntermediate * kHidden),
                          .down = RandomVector(rng, kHidden * kIntermediate)});
      counts_.push_back(count);
      row += count;
    }
    row_count_ = row;
    x_ = RandomVector(rng, size_t{row} * kHidden);
    row = 0;
    for (size_t i = 0; i < experts_.size(); ++i) {
      groups_.push_back({.gate = ViewOf(experts_[i].gate, kHidden),
                         .up = ViewOf(experts_[i].up, kHidden),
                         .down = ViewOf(experts_[i].down, kIntermediate),
                         .first_row = row,
                         .row_count = counts_[i]});
      row += counts_[i];
    }
  }

  std::vector<float> Run(const Kernels& kernels, uint32_t thread_count) {
    ComputePool pool(thread_count);
    std::vector<float> y(size_t{row_count_} * kHidden, -1.0F);
    GroupedFfn(kernels, pool,
               {.groups = groups_,
                .x = x_.data(),
                .hidden_size = kHidden,
                .intermediate_size = kIntermediate,
                .y = y.data(),
                .scratch = &scratch_});
    return y;
  }

  std::vector<Expert> experts_;
  std::vector<uint32_t> counts_;
  std::vector<FfnGroup> groups_;
  std::vector<float> x_;
  std::vector<float> scratch_;
  uint32_t row_count_ = 0;
};

TEST_F(GroupedFfnTest, ComputesEachRowWithItsExpert) {
  const std::vector<float> y = Run(BestKernels(), 1);
  for (size_t e = 0; e < experts_.size(); ++e) {
    for (uint32_t r = groups_[e].first_row; r < groups_[e].first_row + counts_[e]; ++r) {
      const std::vector<double> x(x_.begin() + r * kHidden, x_.begin() + (r + 1) * kHidden);
      std::vector<double> middle(kIntermediate);
      for (uint32_t i = 0; i < kIntermediate; ++i) {
        const double gate = DotOf(experts_[e].gate.data() + i * kHidden, x.data(), kHidden);
        const double up = DotOf(experts_[e].up.data() + i * kHidden, x.data(), kHidden);
        middle[i] = gate / (1.0 + std::exp(-gate)) * up;
      }
      for (uint32_t i = 0; i < kHidden; ++i) {
        const double want =
            DotOf(experts_[e].down.data() + i * kIntermediate, middle.data(), kIntermediate);
        ASSERT_NEAR(static_cast<double>(y[r * kHidden + i]), want, 4e-3) << r << " " << i;
      }
    }
  }
}

TEST_F(GroupedFfnTest, GivesTheSameBitsOnAnyThreadsSetsAndGroupings) {
  const std::vector<float> want = Run(BestKernels(), 1);
  for (const InstructionSet set : SupportedInstructionSets()) {
    for (const uint32_t thread_count : {1U, 2U, 3U}) {
      const std::vector<float> got = Run(**KernelsFor(set), thread_count);
      ASSERT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0)
          << NameOf(set) << " threads " << thread_count;
    }
  }
  // One group per row.
  std::vector<FfnGroup> single;
  for (const FfnGroup& group : groups_) {
    for (uint32_t i = 0; i < group.row_count; ++i) {
      single.push_back(group);
      single.back().first_row = group.first_row + i;
      single.back().row_count = 1;
    }
  }
  groups_ = single;
  const std::vector<float> got = Run(BestKernels(), 2);
  EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0);
}

TEST_F(GroupedFfnTest, NoRowsIsNothingToDo) {
  groups_.clear();
  const std::vector<float> y = Run(BestKernels(), 2);
  EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float value) { return value == -1.0F; }));
}

}  // namespace
}  // namespace switchyard
