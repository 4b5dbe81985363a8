#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
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

TEST(RunRowTiles, CoversEachRowOnceWhateverTheWorkAndThreads) {
  for (const uint32_t thread_count : {1U, 3U}) {
    ComputePool pool(thread_count);
    for (const uint32_t row_count : {0U, 1U, 8U, 45U}) {
      for (const uint64_t work_ns : {uint64_t{0}, uint64_t{1} << 40}) {
        std::vector<std::atomic<int>> visits(row_count);
        RunRowTiles(pool, row_count, work_ns, [&](uint32_t begin, uint32_t end) {
          for (uint32_t row = begin; row < end; ++row) {
            ++visits[row];
          }
        });
        for (const std::atomic<int>& count : visits) {
          EXPECT_EQ(count.load(), 1);
        }
      }
    }
  }
}

TEST(RunPhases, StartsNoTileBeforeTheEarlierPhasesAreDone) {
  const std::vector<uint32_t> tile_counts = {5, 0, 1, 7, 3};
  for (const uint32_t thread_count : {1U, 2U, 5U}) {
    ComputePool pool(thread_count);
    for (uint32_t round = 0; round < 100; ++round) {
      std::vector<std::atomic<uint32_t>> done(tile_counts.size());
      std::atomic<uint32_t> early_count{0};
      RunPhases(pool, tile_counts, uint64_t{1} << 40, [&](uint32_t phase, uint32_t tile) {
        for (uint32_t before = 0; before < phase; ++before) {
          early_count += done[before] < tile_counts[before] ? 1 : 0;
        }
        done[phase] += tile < tile_counts[phase] ? 1 : 0;
      });
      EXPECT_EQ(early_count.load(), 0U);
      for (size_t phase = 0; phase < done.size(); ++phase) {
        EXPECT_EQ(done[phase].load(), tile_counts[phase]);
      }
    }
  }
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

// Weights in some format, and as the f32 they stand for.
class Weights {
 public:
  Weights(WeightFormat format, const std::vector<float>& values, uint32_t columns) {
    packed_ = {.format = format,
               .rows = static_cast<uint32_t>(values.size() / columns),
               .columns = columns};
    StoredMatrix stored{.format = format, .rows = packed_.rows, .columns = columns};
    std::vector<std::byte> bytes(StoredValueBytes(format, packed_.rows, columns));
    QuantizedRows quantized;
    if (format == WeightFormat::kF32) {
      std::memcpy(bytes.data(), values.data(), bytes.size());
    } else if (format == WeightFormat::kBf16) {
      BestKernels().f32_to_bf16(values.data(), reinterpret_cast<uint16_t*>(bytes.data()),
                                values.size());
    } else {
      quantized = Quantize(format, values.data(), packed_.rows, columns);
      bytes = quantized.values;
    }
    stored.values = bytes.data();
    stored.scales = quantized.scales.data();
    data_ = AllocateWeights(packed_.byte_size());
    Pack(stored, {data_.get(), packed_.byte_size()});
    packed_.data = data_.get();
    for (uint32_t row = 0; row < packed_.rows; ++row) {
      values_.resize(size_t{row + 1} * columns);
      UnpackRow(packed_, row, values_.data() + size_t{row} * columns);
    }
  }

  const PackedMatrix& packed() const { return packed_; }

  const std::vector<float>& values() const { return values_; }

 private:
  PackedMatrix packed_;
  std::shared_ptr<std::byte> data_;
  std::vector<float> values_;
};

TEST(ParallelPackedGemms, GivesTheBitsOfProductsAlone) {
  Rng rng(33);
  constexpr uint32_t kRows = 9;
  constexpr uint32_t kDepth = 512;
  const std::vector<float> x = RandomVector(rng, size_t{kRows} * kDepth);
  std::vector<Weights> weights;
  for (const uint32_t outputs : {500U, 64U, 1030U}) {
    weights.emplace_back(WeightFormat::kBf16, RandomVector(rng, size_t{outputs} * kDepth), kDepth);
  }
  for (const uint32_t thread_count : {1U, 2U, 8U}) {
    ComputePool pool(thread_count);
    ActivationBuffer buffer;
    const ActivationView view = PrepareRows(BestKernels(), pool,
                                            {.form = ActivationForm::kBf16,
                                             .x = x.data(),
                                             .x_stride = kDepth,
                                             .row_count = kRows,
                                             .columns = kDepth},
                                            buffer);
    std::vector<PackedGemmArgs> products;
    std::vector<std::vector<float>> want;
    std::vector<std::vector<float>> got;
    for (const Weights& w : weights) {
      const uint32_t outputs = w.packed().rows;
      want.emplace_back(size_t{kRows} * outputs);
      got.emplace_back(size_t{kRows} * outputs);
      products.push_back({.x = view,
                          .w = w.packed(),
                          .y = want.back().data(),
                          .y_stride = outputs,
                          .column_end = outputs});
      PackedGemm(BestKernels(), products.back());
      products.back().y = got.back().data();
    }
    ParallelPackedGemms(BestKernels(), pool, products);
    EXPECT_EQ(got, want);
  }
}

double DotOf(const float* a, const double* b, uint32_t count) {
  double sum = 0.0;
  for (uint32_t i = 0; i < count; ++i) {
    sum += static_cast<double>(a[i]) * b[i];
  }
  return sum;
}

struct Expert {
  Weights gate;
  Weights up;
  Weights down;
};

class GroupedFfnTest : public testing::TestWithParam<WeightFormat> {
 protected:
  static constexpr uint32_t kHidden = 190;
  static constexpr uint32_t kIntermediate = 175;

  GroupedFfnTest() {
    Rng rng(32);
    // Rows per expert, an inactive expert among them.
    uint32_t row = 0;
    for (const uint32_t count : {5U, 1U, 0U, 17U, 2U}) {
      const auto weights = [&](uint32_t rows, uint32_t columns) {
        return Weights(GetParam(), RandomVector(rng, size_t{rows} * columns), columns);
      };
      experts_.push_back({.gate = weights(kIntermediate, kHidden),
                          .up = weights(kIntermediate, kHidden),
                          .down = weights(kHidden, kIntermediate)});
      counts_.push_back(count);
      row += count;
    }
    row_count_ = row;
    x_ = RandomVector(rng, size_t{row} * kHidden);
    row = 0;
    for (size_t i = 0; i < experts_.size(); ++i) {
      groups_.push_back({.gate = experts_[i].gate.packed(),
                         .up = experts_[i].up.packed(),
                         .down = experts_[i].down.packed(),
                         .first_row = row,
                         .row_count = counts_[i]});
      row += counts_[i];
    }
  }

  std::vector<float> Run(const Kernels& kernels, uint32_t thread_count) {
    ComputePool pool(thread_count);
    std::vector<float> y(size_t{row_count_} * kHidden, -1.0F);
    ActivationBuffer buffer;
    const ActivationView x = PrepareRows(kernels, pool,
                                         {.form = FormFor(GetParam()),
                                          .x = x_.data(),
                                          .x_stride = kHidden,
                                          .row_count = row_count_,
                                          .columns = kHidden},
                                         buffer);
    GroupedFfn(kernels, pool,
               {.groups = groups_,
                .x = x,
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
  FfnScratch scratch_;
  uint32_t row_count_ = 0;
};

TEST_P(GroupedFfnTest, ComputesEachRowWithItsExpert) {
  // Outputs are some 600 in size. Rounding of activations to bf16 or eight bits is most of it.
  const double tolerance = GetParam() == WeightFormat::kF32 ? 4e-3 : 12.0;
  const std::vector<float> y = Run(BestKernels(), 1);
  for (size_t e = 0; e < experts_.size(); ++e) {
    for (uint32_t r = groups_[e].first_row; r < groups_[e].first_row + counts_[e]; ++r) {
      const std::vector<double> x(x_.begin() + r * kHidden, x_.begin() + (r + 1) * kHidden);
      std::vector<double> middle(kIntermediate);
      for (uint32_t i = 0; i < kIntermediate; ++i) {
        const double gate =
            DotOf(experts_[e].gate.values().data() + i * kHidden, x.data(), kHidden);
        const double up = DotOf(experts_[e].up.values().data() + i * kHidden, x.data(), kHidden);
        middle[i] = gate / (1.0 + std::exp(-gate)) * up;
      }
      for (uint32_t i = 0; i < kHidden; ++i) {
        const double want = DotOf(experts_[e].down.values().data() + i * kIntermediate,
                                  middle.data(), kIntermediate);
        ASSERT_NEAR(static_cast<double>(y[r * kHidden + i]), want, tolerance) << r << " " << i;
      }
    }
  }
}

TEST_P(GroupedFfnTest, GivesTheSameBitsOnAnyThreadsSetsAndGroupings) {
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

TEST_P(GroupedFfnTest, NoRowsIsNothingToDo) {
  groups_.clear();
  const std::vector<float> y = Run(BestKernels(), 2);
  EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](float value) { return value == -1.0F; }));
}

INSTANTIATE_TEST_SUITE_P(Formats, GroupedFfnTest,
                         testing::Values(WeightFormat::kF32, WeightFormat::kBf16,
                                         WeightFormat::kInt8, WeightFormat::kInt4),
                         [](const auto& suite) { return std::string(NameOf(suite.param)); });

}  // namespace
}  // namespace switchyard
