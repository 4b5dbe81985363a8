#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "libs/base/rng.h"
#include "libs/kernels/compute_pool.h"
#include "libs/kernels/kernels.h"
#include "libs/tensor/dtype.h"

namespace switchyard {
namespace {

constexpr uint32_t kHidden = 2048;

// Enough copies of a matrix that none stays in the cache from one use to the next.
constexpr size_t kWeightBytesTotal = size_t{256} << 20;

std::vector<float> RandomVector(size_t count) {
  Rng rng(1);
  std::vector<float> values(count);
  for (float& value : values) {
    value = 2.0F * rng.Unit() - 1.0F;
  }
  return values;
}

// Distinct matrices of `rows` x `columns`, cold in the cache when used in turn.
class ColdWeights {
 public:
  ColdWeights(uint32_t rows, uint32_t columns, Dtype dtype) {
    view_ = {.dtype = dtype, .rows = rows, .columns = columns};
    count_ = std::max<size_t>(kWeightBytesTotal / view_.byte_size(), 1);
    bytes_.resize(count_ * view_.byte_size());
    for (size_t i = 0; i + 1 < bytes_.size(); i += 2) {
      bytes_[i + 1] = static_cast<uint8_t>(0x38 + (Mix64(i) & 7));
    }
  }

  MatrixView Next() {
    next_ = (next_ + 1) % count_;
    MatrixView view = view_;
    view.data = bytes_.data() + next_ * view.byte_size();
    return view;
  }

 private:
  MatrixView view_;
  size_t count_ = 0;
  size_t next_ = 0;
  std::vector<uint8_t> bytes_;
};

void SetRates(benchmark::State& state, double multiply_adds, double bytes) {
  const auto runs = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * multiply_adds * runs, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes * runs, benchmark::Counter::kIsRate);
}

void BenchGemm(benchmark::State& state, const Kernels& kernels, Dtype dtype, bool cold) {
  const auto row_count = static_cast<uint32_t>(state.range(0));
  ColdWeights weights(kHidden, kHidden, dtype);
  const MatrixView warm = weights.Next();
  const std::vector<float> x = RandomVector(size_t{row_count} * kHidden);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    kernels.gemm({.x = x.data(),
                  .x_stride = kHidden,
                  .row_count = row_count,
                  .w = cold ? weights.Next() : warm,
                  .y = y.data(),
                  .y_stride = kHidden,
                  .column_end = kHidden});
    benchmark::ClobberMemory();
  }
  SetRates(state, static_cast<double>(row_count) * kHidden * kHidden,
           static_cast<double>(warm.byte_size()));
}

// Sixteen experts of 2048 x 1024, `rows` rows each.
void BenchGroupedFfn(benchmark::State& state, const Kernels& kernels, uint32_t thread_count) {
  constexpr uint32_t kIntermediate = 1024;
  constexpr uint32_t kExpertCount = 16;
  const auto rows = static_cast<uint32_t>(state.range(0));
  ColdWeights up(kIntermediate, kHidden, Dtype::kBf16);
  ColdWeights down(kHidden, kIntermediate, Dtype::kBf16);
  std::vector<FfnGroup> groups;
  for (uint32_t i = 0; i < kExpertCount; ++i) {
    groups.push_back({.gate = up.Next(),
                      .up = up.Next(),
                      .down = down.Next(),
                      .first_row = i * rows,
                      .row_count = rows});
  }
  const std::vector<float> x = RandomVector(size_t{kExpertCount} * rows * kHidden);
  std::vector<float> y(x.size());
  std::vector<float> scratch;
  ComputePool pool(thread_count);
  for (auto _ : state) {
    GroupedFfn(kernels, pool,
               {.groups = groups,
                .x = x.data(),
                .hidden_size = kHidden,
                .intermediate_size = kIntermediate,
                .y = y.data(),
                .scratch = &scratch});
    benchmark::ClobberMemory();
  }
  const double weights = 3.0 * kExpertCount * kHidden * kIntermediate;
  SetRates(state, weights * rows, weights * 2);
}

void BenchPoolHandOver(benchmark::State& state) {
  ComputePool pool(static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) {
    pool.Run(8, [](uint32_t tile) { benchmark::DoNotOptimize(tile); });
  }
}

// A plain read of memory with the same footprint: the ceiling for one row.
void BenchReadMemory(benchmark::State& state) {
  std::vector<uint64_t> data(kWeightBytesTotal / sizeof(uint64_t), 3);
  for (auto _ : state) {
    uint64_t sums[8] = {};
    for (size_t i = 0; i < data.size(); i += 8) {
      for (size_t lane = 0; lane < 8; ++lane) {
        sums[lane] += data[i + lane];
      }
    }
    benchmark::DoNotOptimize(sums);
  }
  SetRates(state, 0.0, static_cast<double>(kWeightBytesTotal));
}

int RegisterAll() {
  for (const InstructionSet set : SupportedInstructionSets()) {
    if (set == InstructionSet::kScalar) {
      continue;
    }
    const Kernels* kernels = *KernelsFor(set);
    const std::string name(NameOf(set));
    for (const Dtype dtype : {Dtype::kBf16, Dtype::kF32}) {
      for (const bool cold : {false, true}) {
        const std::string id =
            "gemm/" + name + "/" + std::string(NameOf(dtype)) + (cold ? "/cold" : "/warm");
        benchmark::RegisterBenchmark(
            id.c_str(), [=](benchmark::State& state) { BenchGemm(state, *kernels, dtype, cold); })
            ->Arg(1)
            ->Arg(4)
            ->Arg(8)
            ->Arg(32)
            ->Arg(128);
      }
    }
    for (const uint32_t thread_count : {1U, 2U}) {
      const std::string id = "grouped_ffn/" + name + "/threads:" + std::to_string(thread_count);
      benchmark::RegisterBenchmark(
          id.c_str(),
          [=](benchmark::State& state) { BenchGroupedFfn(state, *kernels, thread_count); })
          ->Arg(1)
          ->Arg(4)
          ->Arg(8)
          ->Arg(32)
          ->UseRealTime();
    }
  }
  benchmark::RegisterBenchmark("pool_hand_over", BenchPoolHandOver)->Arg(1)->Arg(2)->UseRealTime();
  benchmark::RegisterBenchmark("read_memory", BenchReadMemory);
  return 0;
}

const int kRegistered = RegisterAll();

}  // namespace
}  // namespace switchyard
