// One MoE layer with the shapes of DeepSeek-V3 as a shard computes it: dispatch frames in, encoded
// rows out, over the shard's own ExpertBatcher. The network is left out. More experts than caches
// hold, each with weights of its own place in memory, so that weights come from memory as in a
// model. Tokens choose 8 of 256 experts at random; those that fall on this shard's experts count.
#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include "fmt/core.h"
#include "libs/base/check.h"
#include "libs/base/rng.h"
#include "libs/experts/expert_batcher.h"
#include "libs/kernels/machine_peaks.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

constexpr uint32_t kHidden = 7168;
constexpr uint32_t kIntermediate = 2048;
constexpr uint16_t kExpertCount = 256;
constexpr uint32_t kTopK = 8;
constexpr double kExpertWeights = 3.0 * kHidden * kIntermediate;
constexpr Dtype kRowDtype = Dtype::kBf16;
constexpr size_t kRowBytes = size_t{kHidden} * 2;
constexpr uint32_t kFrameEntries = kFrameRowBytesMax / kRowBytes;
constexpr uint32_t kBatchMax = 512;
constexpr uint32_t kStepsMax = 64;  // Different ones; then they are used again.
constexpr int kRounds = 5;
constexpr double kMemoryShareMax = 0.8;

constexpr std::string_view kHelp =
    R"(experts_bench: an MoE layer with the shapes of DeepSeek-V3 (hidden 7168, 256 experts of 2048,
8 a token), as one shard of it computes it

usage: experts_bench [--experts N] [--threads N] [--batches LIST] [--formats LIST] [--seconds N]
                     [--seed N] [--json]

  --experts N      experts this shard holds, 1 to 256 (64: one of 4 shards); 44 MB each in FP8
  --threads N      1 to 256 (all of the machine)
  --batches LIST   tokens per step, 1 to 512 each (1,8,32,128)
  --formats LIST   of fp8, bf16, int8, int4 (fp8)
  --seconds N      of work for each batch of each format, 1 to 60 (3)
  --seed N         of tokens and weights (1)
  --json           one object a line instead of the table

expert tokens/s   (token, expert) pairs this shard computes in a second
of limit          share of the shortest time that the machine's memory bandwidth and arithmetic
                  (measured before each round) allow for the step's weight bytes and operations
Medians of 5 rounds over the same steps, with the least and the most.
)";

struct Options {
  uint32_t experts = 64;
  uint32_t threads = std::max(std::thread::hardware_concurrency(), 1U);
  std::vector<uint32_t> batches{1, 8, 32, 128};
  std::vector<WeightFormat> formats{WeightFormat::kFp8};
  uint32_t seconds = 3;
  uint32_t seed = 1;
  bool json = false;
};

std::optional<uint32_t> ReadNumber(std::string_view text, uint32_t least, uint32_t most) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    return std::nullopt;
  }
  return value;
}

std::vector<std::string_view> Split(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    const size_t comma = text.find(',');
    words.push_back(text.substr(0, comma));
    if (comma == std::string_view::npos) {
      return words;
    }
    text.remove_prefix(comma + 1);
  }
}

bool ReadBatches(std::string_view text, std::vector<uint32_t>& batches) {
  batches.clear();
  for (const std::string_view word : Split(text)) {
    const std::optional<uint32_t> batch = ReadNumber(word, 1, kBatchMax);
    if (!batch.has_value()) {
      return false;
    }
    batches.push_back(*batch);
  }
  return true;
}

bool ReadFormats(std::string_view text, std::vector<WeightFormat>& formats) {
  constexpr std::array kKnown{WeightFormat::kFp8, WeightFormat::kBf16, WeightFormat::kInt8,
                              WeightFormat::kInt4};
  formats.clear();
  for (const std::string_view word : Split(text)) {
    const auto* const found = std::ranges::find_if(
        kKnown, [word](WeightFormat format) { return word == NameOf(format); });
    if (found == kKnown.end()) {
      return false;
    }
    formats.push_back(*found);
  }
  return true;
}

bool ReadOption(std::string_view flag, std::string_view value, Options& options) {
  if (flag == "--batches") {
    return ReadBatches(value, options.batches);
  }
  if (flag == "--formats") {
    return ReadFormats(value, options.formats);
  }

  struct Number {
    std::string_view flag;
    uint32_t least;
    uint32_t most;
    uint32_t* target;
  };

  for (const Number& number :
       {Number{"--experts", 1, kExpertCount, &options.experts},
        Number{"--threads", 1, 256, &options.threads}, Number{"--seconds", 1, 60, &options.seconds},
        Number{"--seed", 0, UINT32_MAX, &options.seed}}) {
    if (number.flag == flag) {
      const std::optional<uint32_t> read = ReadNumber(value, number.least, number.most);
      *number.target = read.value_or(0);
      return read.has_value();
    }
  }
  return false;
}

// Weights as a checkpoint would hold them, with a standard deviation of about 0.01.
class Stored {
 public:
  Stored(WeightFormat format, uint32_t rows, uint32_t columns, Rng& rng) {
    matrix_ = {.format = format, .rows = rows, .columns = columns};
    const size_t count = size_t{rows} * columns;
    if (format == WeightFormat::kFp8) {
      codes_.resize(count);
      for (std::byte& code : codes_) {  // Magnitudes from 1/8 to 1.
        const uint64_t bits = rng.Next();
        code = static_cast<std::byte>((bits & 0x80U) | (0x20U + (bits >> 8) % 0x18U));
      }
      scales_.assign(
          size_t{(rows + kFp8Block - 1) / kFp8Block} * ((columns + kFp8Block - 1) / kFp8Block),
          0.02F);
      matrix_.scales = scales_.data();
    } else {
      std::vector<float> values(count);
      for (float& value : values) {
        value = (rng.Unit() - 0.5F) * 0.04F;
      }
      if (format == WeightFormat::kBf16) {
        codes_.resize(count * 2);
        BestKernels().f32_to_bf16(values.data(), reinterpret_cast<uint16_t*>(codes_.data()), count);
      } else {
        quantized_ = Quantize(format, values.data(), rows, columns);
        codes_ = std::move(quantized_.values);
        matrix_.scales = quantized_.scales.data();
      }
    }
    matrix_.values = codes_.data();
  }

  const StoredMatrix& matrix() const { return matrix_; }

 private:
  std::vector<std::byte> codes_;
  std::vector<float> scales_;
  QuantizedRows quantized_;
  StoredMatrix matrix_;
};

// Where the matrices of an expert lie in its memory.
struct ExpertLayout {
  WeightFormat format;
  size_t in_bytes;  // Of gate and of up each.
  size_t down_bytes;

  explicit ExpertLayout(WeightFormat kept)
      : format(kept),
        in_bytes(RoundUp(PackedBytes(kept, kIntermediate, kHidden))),
        down_bytes(RoundUp(PackedBytes(kept, kHidden, kIntermediate))) {}

  static size_t RoundUp(size_t bytes) { return (bytes + 63) / 64 * 64; }

  size_t byte_size() const { return 2 * in_bytes + down_bytes; }

  ExpertWeights At(const std::shared_ptr<std::byte>& memory) const {
    const auto in = [&](size_t offset) {
      return PackedMatrix{.data = memory.get() + offset,
                          .format = format,
                          .rows = kIntermediate,
                          .columns = kHidden};
    };
    return {.gate = in(0),
            .up = in(in_bytes),
            .down = {.data = memory.get() + 2 * in_bytes,
                     .format = format,
                     .rows = kHidden,
                     .columns = kIntermediate},
            .owner = memory};
  }
};

// All experts have the same values, each in memory of its own.
void FillBank(const ExpertLayout& layout, const Options& options, ExpertBank& bank) {
  Rng rng(options.seed);
  std::shared_ptr<std::byte> first;
  for (uint32_t expert = 0; expert < options.experts; ++expert) {
    std::shared_ptr<std::byte> memory = AllocateWeights(layout.byte_size());
    if (first == nullptr) {
      first = memory;
      for (const size_t offset : {size_t{0}, layout.in_bytes}) {
        Pack(Stored(layout.format, kIntermediate, kHidden, rng).matrix(),
             std::span(memory.get() + offset, PackedBytes(layout.format, kIntermediate, kHidden)));
      }
      Pack(Stored(layout.format, kHidden, kIntermediate, rng).matrix(),
           std::span(memory.get() + 2 * layout.in_bytes,
                     PackedBytes(layout.format, kHidden, kIntermediate)));
    } else {
      std::memcpy(memory.get(), first.get(), layout.byte_size());
    }
    SY_CHECK(bank.Load(LayerId(0), ExpertId(static_cast<uint16_t>(expert)),
                       std::make_shared<const ExpertWeights>(layout.At(memory)))
                 .ok());
  }
}

// What a shard gets of one step's rows.
struct Step {
  struct Frame {
    uint32_t row_count = 0;
    std::vector<RouteEntry> entries;
  };

  std::vector<Frame> frames;
  uint32_t pair_count = 0;
  uint32_t activated_count = 0;
};

// Each of `batch` tokens chooses kTopK different ones of all experts; the first `experts` are here.
Step MakeStep(uint32_t batch, uint32_t experts, Rng& rng) {
  Step step;
  std::array<uint16_t, kExpertCount> order{};
  for (uint16_t i = 0; i < kExpertCount; ++i) {
    order[i] = i;
  }
  std::array<bool, kExpertCount> activated{};
  for (uint32_t token = 0; token < batch; ++token) {
    std::vector<RouteEntry> entries;
    for (uint16_t slot = 0; slot < kTopK; ++slot) {
      std::swap(order[slot], order[slot + rng.Below(kExpertCount - slot)]);
      if (order[slot] < experts) {
        entries.push_back({.expert = order[slot], .slot = slot});
        activated[order[slot]] = true;
      }
    }
    if (entries.empty()) {
      continue;
    }
    if (step.frames.empty() || step.frames.back().entries.size() + entries.size() > kFrameEntries) {
      step.frames.emplace_back();
    }
    Step::Frame& frame = step.frames.back();
    for (RouteEntry& entry : entries) {
      entry.row = frame.row_count;
      frame.entries.push_back(entry);
    }
    ++frame.row_count;
    step.pair_count += static_cast<uint32_t>(entries.size());
  }
  for (Step::Frame& frame : step.frames) {
    std::ranges::sort(frame.entries, {},
                      [](const RouteEntry& e) { return std::pair(e.expert, e.row); });
  }
  step.activated_count = static_cast<uint32_t>(std::ranges::count(activated, true));
  return step;
}

// What the machine could do, and what it did, within a second or two of each other: on a shared
// machine only their ratio lasts.
struct Round {
  MachinePeaks peaks;
  double step_seconds = 0;
};

struct CaseResult {
  WeightFormat format = WeightFormat::kFp8;
  uint32_t batch = 0;
  double pairs = 0;      // (token, expert) of a step, as all below.
  double activated = 0;  // Experts whose weights are read.
  double bytes = 0;      // Of weights.
  std::vector<Round> rounds;

  double operations() const { return 2.0 * kExpertWeights * pairs; }

  double Peak(const Round& round) const {
    return FormFor(format) == ActivationForm::kInt8 ? round.peaks.int8_ops : round.peaks.bf16_flops;
  }

  double MemoryShare(const Round& round) const {
    return bytes / round.peaks.read_bytes_per_second / round.step_seconds;
  }

  double ArithmeticShare(const Round& round) const {
    return operations() / Peak(round) / round.step_seconds;
  }
};

struct Spread {
  double least = 0;
  double median = 0;
  double most = 0;
};

template <typename F>
Spread SpreadOf(const CaseResult& result, const F& value) {
  std::vector<double> values;
  for (const Round& round : result.rounds) {
    values.push_back(value(round));
  }
  std::ranges::sort(values);
  return {.least = values.front(), .median = values[values.size() / 2], .most = values.back()};
}

// A shard without a network. One owner.
class Shard {
 public:
  Shard(const ExpertLayout& layout, const Options& options)
      : options_(options),
        layout_(layout),
        bank_(kShape),
        load_(kShape),
        pool_(options.threads, std::chrono::microseconds(10)),
        batcher_({}, bank_, BestKernels(), pool_, load_),
        reply_(kFrameEntries * kRowBytes) {
    FillBank(layout, options, bank_);
    Rng rng(options.seed + 1ULL);
    std::vector<float> row(kHidden);
    rows_.resize(kFrameEntries * kRowBytes);
    for (uint32_t i = 0; i < kFrameEntries; ++i) {
      for (float& value : row) {
        value = 2.0F * rng.Unit() - 1.0F;
      }
      SY_CHECK(EncodeRow(row, kRowDtype, rows_.data() + i * kRowBytes));
    }
  }

  CaseResult Run(uint32_t batch) {
    Rng rng(options_.seed * 1'000'003ULL + batch);
    std::vector<Step> steps;
    CaseResult result{.format = layout_.format, .batch = batch};
    // How many steps fit a round's time shows here, which warms up, too.
    const double round_seconds = static_cast<double>(options_.seconds) / (kRounds + 1);
    for (double spent = 0; steps.size() < kStepsMax && (steps.empty() || spent < round_seconds);) {
      steps.push_back(MakeStep(batch, options_.experts, rng));
      spent += Time(std::span(steps).last(1));
      result.pairs += steps.back().pair_count;
      result.activated += steps.back().activated_count;
    }
    const auto step_count = static_cast<double>(steps.size());
    result.pairs /= step_count;
    result.activated /= step_count;
    result.bytes = result.activated * static_cast<double>(layout_.byte_size());
    for (int round = 0; round < kRounds; ++round) {
      const MachinePeaks peaks = MeasurePeaks(options_.threads);
      result.rounds.push_back({.peaks = peaks, .step_seconds = Time(steps) / step_count});
    }
    return result;
  }

 private:
  static constexpr ExpertShape kShape{.layer_count = 1, .expert_count = kExpertCount};

  // Seconds of these steps, one after the other.
  double Time(std::span<const Step> steps) {
    const SteadyClock clock;
    const Instant start = clock.Now();
    for (const Step& step : steps) {
      uint32_t answered = 0;
      AddFrames(step, start);
      while (!batcher_.empty()) {
        batcher_.RunBatch(
            Instant::max(), SIZE_MAX, [](const QueuedFrame&) { return true; },
            [&](const QueuedFrame&, FrameStatus status, std::span<const float* const> rows) {
              SY_CHECK(status == FrameStatus::kOk);
              answered += Encode(rows);
            });
      }
      SY_CHECK(answered == step.pair_count);
    }
    return ToSeconds(clock.Now() - start);
  }

  void AddFrames(const Step& step, Instant now) {
    for (const Step::Frame& frame : step.frames) {
      FrameHeader header;
      header.kind = FrameKind::kDispatch;
      header.dtype = kRowDtype;
      header.row_count = frame.row_count;
      header.entry_count = static_cast<uint32_t>(frame.entries.size());
      header.hidden_size = kHidden;
      header.more_follows = &frame == &step.frames.back() ? 0 : 1;
      const ParsedFrame parsed{
          .header = header,
          .entries =
              RouteEntries(std::as_bytes(std::span(frame.entries)).data(), header.entry_count),
          .payload = std::span(rows_).first(frame.row_count * kRowBytes)};
      SY_CHECK(batcher_.Add(PeerHandle(), parsed, now) == ExpertBatcher::AddResult::kQueued);
    }
  }

  uint32_t Encode(std::span<const float* const> rows) {
    for (size_t i = 0; i < rows.size(); ++i) {
      SY_CHECK(EncodeRow({rows[i], kHidden}, kRowDtype, reply_.data() + i * kRowBytes));
    }
    return static_cast<uint32_t>(rows.size());
  }

  const Options& options_;
  const ExpertLayout layout_;
  ExpertBank bank_;
  LoadCounter load_;
  ComputePool pool_;
  ExpertBatcher batcher_;
  std::vector<std::byte> rows_;   // Of any frame.
  std::vector<std::byte> reply_;  // To any frame.
};

void PrintHead(const Options& options) {
  if (!options.json) {
    fmt::print(
        "{} of {} experts (1 of {:.1f} shards), {} threads, {}, seed {}\n"
        "format batch   pairs activated   step ms  expert tokens/s (least to most)     MB read"
        "  GB/s of limit         Gop/s of limit        share of limit (least to most)\n",
        options.experts, kExpertCount, static_cast<double>(kExpertCount) / options.experts,
        options.threads, NameOf(BestKernels().instruction_set), options.seed);
  }
}

void Report(const Options& options, const CaseResult& result) {
  const Spread seconds = SpreadOf(result, [](const Round& r) { return r.step_seconds; });
  const Spread rate =
      SpreadOf(result, [&](const Round& r) { return result.pairs / r.step_seconds; });
  const Spread memory = SpreadOf(result, [&](const Round& r) { return result.MemoryShare(r); });
  const Spread arithmetic =
      SpreadOf(result, [&](const Round& r) { return result.ArithmeticShare(r); });
  const Spread share = SpreadOf(result, [&](const Round& r) {
    return std::max(result.MemoryShare(r), result.ArithmeticShare(r));
  });
  const double read_peak =
      SpreadOf(result, [](const Round& r) { return r.peaks.read_bytes_per_second; }).median;
  const double peak = SpreadOf(result, [&](const Round& r) { return result.Peak(r); }).median;
  if (options.json) {
    fmt::print(
        "{{\"bench\":\"v3_layer\",\"format\":\"{}\",\"set\":\"{}\",\"threads\":{},\"experts\":{},"
        "\"seed\":{},\"batch\":{},\"pairs\":{:.2f},\"activated\":{:.2f},\"step_ms\":{:.4f},"
        "\"expert_tokens_per_second\":{:.1f},\"expert_tokens_per_second_min\":{:.1f},"
        "\"expert_tokens_per_second_max\":{:.1f},\"bytes\":{:.0f},\"operations\":{:.0f},"
        "\"limit_gbytes_per_second\":{:.2f},\"limit_gops\":{:.1f},\"bandwidth_share\":{:.4f},"
        "\"arithmetic_share\":{:.4f},\"limit_share\":{:.4f},\"limit_share_min\":{:.4f},"
        "\"limit_share_max\":{:.4f}}}\n",
        NameOf(result.format), NameOf(BestKernels().instruction_set), options.threads,
        options.experts, options.seed, result.batch, result.pairs, result.activated,
        seconds.median * 1e3, rate.median, rate.least, rate.most, result.bytes, result.operations(),
        read_peak * 1e-9, peak * 1e-9, memory.median, arithmetic.median, share.median, share.least,
        share.most);
  } else {
    fmt::print(
        "{:<6} {:>5} {:>7.1f} {:>9.1f} {:>9.3f} {:>9.1f} ({:.1f} to {:.1f}) {:>9.1f} {:>7.2f} of "
        "{:.1f} {:>3.0f} % {:>6.0f} of {:.0f} {:>3.0f} % {:>5.0f} % ({:.0f} to {:.0f})\n",
        NameOf(result.format), result.batch, result.pairs, result.activated, seconds.median * 1e3,
        rate.median, rate.least, rate.most, result.bytes * 1e-6,
        result.bytes / seconds.median * 1e-9, read_peak * 1e-9, memory.median * 1e2,
        result.operations() / seconds.median * 1e-9, peak * 1e-9, arithmetic.median * 1e2,
        share.median * 1e2, share.least * 1e2, share.most * 1e2);
  }
  std::fflush(stdout);
}

// False, with a word on stderr, when the machine has too little memory.
bool FitsMemory(const Options& options, const ExpertLayout& layout) {
  const double have =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const double need = static_cast<double>(layout.byte_size()) * options.experts;
  if (need <= have * kMemoryShareMax) {
    return true;
  }
  fmt::print(stderr,
             "experts_bench: {} experts in {} take {:.1f} GB, which is more than {:.0f} % of this "
             "machine's {:.1f} GB; give fewer --experts\n",
             options.experts, NameOf(layout.format), need * 1e-9, kMemoryShareMax * 1e2,
             have * 1e-9);
  return false;
}

int Run(const Options& options) {
  for (const WeightFormat format : options.formats) {
    if (!FitsMemory(options, ExpertLayout(format))) {
      return 1;
    }
  }
  PrintHead(options);
  for (const WeightFormat format : options.formats) {
    Shard shard(ExpertLayout(format), options);
    for (const uint32_t batch : options.batches) {
      Report(options, shard.Run(batch));
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
    if (flag == "--help" || flag == "-h") {
      fmt::print("{}", switchyard::kHelp);
      return 0;
    }
    if (flag == "--json") {
      options.json = true;
    } else if (i + 1 >= argc || !switchyard::ReadOption(flag, argv[i + 1], options)) {
      fmt::print(stderr, "experts_bench: cannot read {} {}; see --help\n", flag,
                 i + 1 < argc ? argv[i + 1] : "");
      return 2;
    } else {
      ++i;
    }
  }
  return switchyard::Run(options);
}
