// Products with packed weights, each as a share of what the machine can do at most. Weights lie in
// many matrices used in turn, so that they come from memory as in a model.
//
// kernels_bench [--threads N] [--set NAME] [--format NAME] [--json]
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/core.h"
#include "libs/kernels/compute_pool.h"
#include "libs/kernels/kernels.h"
#include "libs/kernels/machine_peaks.h"

namespace switchyard {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kWeightBytes = size_t{384} << 20;
constexpr uint32_t kExpertCount = 64;
constexpr int kRounds = 5;
constexpr uint32_t kRowCounts[] = {1, 2, 3, 4, 8, 32, 128, 512};

struct Options {
  uint32_t thread_count = 1;
  std::string set;     // Empty: the best.
  std::string format;  // Empty: all.
  bool json = false;
};

struct Shape {
  uint32_t outputs;
  uint32_t depth;
};

// Any finite weights do: time does not depend on them.
class Weights {
 public:
  Weights() : data_(AllocateWeights(kWeightBytes)) { std::memset(data_.get(), 0x31, kWeightBytes); }

  // The next matrix in memory, of those that fit.
  PackedMatrix Next(WeightFormat format, const Shape& shape) {
    const size_t byte_count = PackedBytes(format, shape.outputs, shape.depth);
    if (offset_ + byte_count > kWeightBytes) {
      offset_ = 0;
    }
    const PackedMatrix matrix{.data = data_.get() + offset_,
                              .format = format,
                              .rows = shape.outputs,
                              .columns = shape.depth};
    offset_ += (byte_count + 63) / 64 * 64;
    return matrix;
  }

 private:
  std::shared_ptr<std::byte> data_;
  size_t offset_ = 0;
};

// What all measurements share.
struct Bench {
  const Kernels& kernels;
  const Options& options;
  MachinePeaks peaks;
  ComputePool pool;
  Weights weights;

  Bench(const Kernels& table, const Options& wanted)
      : kernels(table),
        options(wanted),
        peaks(MeasurePeaks(wanted.thread_count)),
        pool(wanted.thread_count) {}

  double Peak(WeightFormat format) const {
    switch (FormFor(format)) {
      case ActivationForm::kBf16:
        return peaks.bf16_flops;
      case ActivationForm::kInt8:
        return peaks.int8_ops;
      case ActivationForm::kF32:
        break;
    }
    return peaks.f32_flops;
  }

  ActivationView Prepare(WeightFormat format, const std::vector<float>& x, uint32_t columns,
                         ActivationBuffer& buffer) {
    return PrepareRows(kernels, pool,
                       {.form = FormFor(format),
                        .x = x.data(),
                        .x_stride = columns,
                        .row_count = static_cast<uint32_t>(x.size() / columns),
                        .columns = columns},
                       buffer);
  }

  // Seconds of one call, the best of some rounds of calls that take a while together.
  template <typename F>
  static double Time(double multiply_adds, const F& call) {
    const int calls = static_cast<int>(std::clamp(2e9 / multiply_adds, 1.0, 200.0));
    double best = 1e9;
    for (int round = 0; round < kRounds; ++round) {
      const Clock::time_point start = Clock::now();
      for (int i = 0; i < calls; ++i) {
        call();
      }
      const std::chrono::duration<double> taken = Clock::now() - start;
      best = std::min(best, taken.count() / calls);
    }
    return best;
  }

  void Report(std::string_view name, WeightFormat format, uint32_t row_count, double seconds,
              double multiply_adds, double bytes) const {
    const double ops = 2.0 * multiply_adds / seconds;
    const double rate = bytes / seconds;
    const double op_share = 100.0 * ops / Peak(format);
    const double byte_share = 100.0 * rate / peaks.read_bytes_per_second;
    if (options.json) {
      fmt::print(
          "{{\"bench\":\"{}\",\"format\":\"{}\",\"set\":\"{}\",\"threads\":{},\"rows\":{},"
          "\"us\":{:.2f},\"gops\":{:.1f},\"gbytes_per_second\":{:.2f},\"arithmetic_share\":{:.3f},"
          "\"bandwidth_share\":{:.3f}}}\n",
          name, NameOf(format), NameOf(kernels.instruction_set), options.thread_count, row_count,
          seconds * 1e6, ops / 1e9, rate / 1e9, op_share / 100.0, byte_share / 100.0);
    } else {
      fmt::print(
          "{:<20} {:<5} {:>5} {:>10.1f} us {:>8.1f} Gop/s {:>4.0f} % {:>7.2f} GB/s {:>4.0f} %\n",
          name, NameOf(format), row_count, seconds * 1e6, ops / 1e9, op_share, rate / 1e9,
          byte_share);
    }
  }

  void Gemm(WeightFormat format, const Shape& shape, uint32_t row_count) {
    const std::vector<float> x(size_t{row_count} * shape.depth, 0.5F);
    std::vector<float> y(size_t{row_count} * shape.outputs);
    ActivationBuffer buffer;
    const ActivationView rows = Prepare(format, x, shape.depth, buffer);
    const double weight_count = static_cast<double>(shape.outputs) * shape.depth;
    const double seconds = Time(weight_count * row_count, [&] {
      ParallelPackedGemm(kernels, pool,
                         {.x = rows,
                          .w = weights.Next(format, shape),
                          .y = y.data(),
                          .y_stride = shape.outputs,
                          .column_end = shape.outputs});
    });
    Report(fmt::format("gemm {}x{}", shape.outputs, shape.depth), format, row_count, seconds,
           weight_count * row_count,
           static_cast<double>(PackedBytes(format, shape.outputs, shape.depth)));
  }

  // All experts of a mid-size layer, `row_count` rows each.
  void Ffn(WeightFormat format, uint32_t row_count) {
    constexpr Shape kUp{512, 1024};
    constexpr Shape kDown{1024, 512};
    const std::vector<float> x(size_t{kExpertCount} * row_count * kUp.depth, 0.5F);
    std::vector<float> y(x.size());
    ActivationBuffer buffer;
    const ActivationView rows = Prepare(format, x, kUp.depth, buffer);
    FfnScratch scratch;
    const double weight_count = 3.0 * kExpertCount * kUp.outputs * kUp.depth;
    std::vector<FfnGroup> groups(kExpertCount);
    double bytes = 0.0;
    const double seconds = Time(weight_count * row_count, [&] {
      bytes = 0.0;
      for (uint32_t i = 0; i < kExpertCount; ++i) {
        groups[i] = {.gate = weights.Next(format, kUp),
                     .up = weights.Next(format, kUp),
                     .down = weights.Next(format, kDown),
                     .first_row = i * row_count,
                     .row_count = row_count};
        bytes += static_cast<double>(groups[i].gate.byte_size() * 2 + groups[i].down.byte_size());
      }
      GroupedFfn(kernels, pool,
                 {.groups = groups,
                  .x = rows,
                  .hidden_size = kUp.depth,
                  .intermediate_size = kUp.outputs,
                  .y = y.data(),
                  .scratch = &scratch});
    });
    Report("ffn 64x512x1024", format, row_count, seconds, weight_count * row_count, bytes);
  }

  void HandOver() {
    constexpr int kRuns = 2000;
    const double seconds = Time(1e9, [&] {
      for (int i = 0; i < kRuns; ++i) {
        pool.Run(8, [](uint32_t) {});
      }
    });
    if (options.json) {
      fmt::print("{{\"bench\":\"hand_over\",\"threads\":{},\"us\":{:.3f}}}\n", options.thread_count,
                 seconds / kRuns * 1e6);
    } else {
      fmt::print("hand over {:.2f} us\n", seconds / kRuns * 1e6);
    }
  }

  void Peaks() const {
    const char* const text =
        options.json ? "{{\"bench\":\"peaks\",\"threads\":{},\"read_gbytes_per_second\":{:.2f},"
                       "\"f32_gflops\":{:.1f},\"bf16_gflops\":{:.1f},\"int8_gops\":{:.1f}}}\n"
                     : "peaks of {} threads: read {:.2f} GB/s, f32 {:.1f} GFLOP/s, bf16 {:.1f} "
                       "GFLOP/s, int8 {:.1f} GOP/s\n";
    fmt::print(fmt::runtime(text), options.thread_count, peaks.read_bytes_per_second / 1e9,
               peaks.f32_flops / 1e9, peaks.bf16_flops / 1e9, peaks.int8_ops / 1e9);
  }
};

int Run(const Options& options) {
  const Kernels* kernels = &BestKernels();
  for (const InstructionSet set : SupportedInstructionSets()) {
    if (NameOf(set) == options.set) {
      kernels = *KernelsFor(set);
    }
  }
  Bench bench(*kernels, options);
  bench.Peaks();
  bench.HandOver();
  for (const WeightFormat format :
       {WeightFormat::kBf16, WeightFormat::kFp8, WeightFormat::kInt8, WeightFormat::kInt4}) {
    if (!options.format.empty() && options.format != NameOf(format)) {
      continue;
    }
    for (const Shape shape :
         {Shape{512, 1024}, Shape{1024, 512}, Shape{2048, 7168}, Shape{7168, 2048}}) {
      for (const uint32_t row_count : kRowCounts) {
        bench.Gemm(format, shape, row_count);
      }
    }
    for (const uint32_t row_count : {1U, 2U, 3U, 4U, 8U, 32U, 64U}) {
      bench.Ffn(format, row_count);
    }
  }
  return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--json") {
      options.json = true;
    } else if (i + 1 < argc && flag == "--threads") {
      options.thread_count = static_cast<uint32_t>(std::max(1, std::atoi(argv[++i])));
    } else if (i + 1 < argc && flag == "--set") {
      options.set = argv[++i];
    } else if (i + 1 < argc && flag == "--format") {
      options.format = argv[++i];
    } else {
      fmt::print(stderr,
                 "usage: kernels_bench [--threads N] [--set NAME] [--format NAME] [--json]\n");
      return 2;
    }
  }
  return switchyard::Run(options);
}
