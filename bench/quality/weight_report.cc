#include "bench/quality/weight_report.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include <unistd.h>

#include "libs/base/clock.h"
#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/checkpoint.h"

namespace switchyard {
namespace {

constexpr size_t kStatBytesMax = 4096;

// Second word of /proc/self/statm, in pages.
absl::StatusOr<uint64_t> ResidentBytes() {
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile("/proc/self/statm", kStatBytesMax));
  const size_t at = text.find(' ');
  uint64_t pages = 0;
  if (at == std::string::npos ||
      std::from_chars(text.data() + at + 1, text.data() + text.size(), pages).ec != std::errc()) {
    return Internal("/proc/self/statm: no second number");
  }
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// Bits per weight are about what a file of this choice holds; `bytes` are those in memory.
WeightFormat CountedFormat(const PlannedTensor& tensor) { return tensor.rounded; }

void Count(const std::vector<PlannedTensor>& tensors, WeightReport& report) {
  for (const PlannedTensor& tensor : tensors) {
    const WeightRole role = tensor.source.role;
    const WeightFormat format = CountedFormat(tensor);
    auto share = std::find_if(report.shares.begin(), report.shares.end(),
                              [role, format](const WeightShare& candidate) {
                                return candidate.role == role && candidate.format == format;
                              });
    if (share == report.shares.end()) {
      share = report.shares.insert(share, {.role = role, .format = format});
    }
    share->parameters += uint64_t{tensor.source.slice.rows} * tensor.source.slice.columns;
    share->bytes += tensor.kept_bytes;
  }
}

}  // namespace

uint64_t WeightReport::parameters() const {
  uint64_t sum = 0;
  for (const WeightShare& share : shares) {
    sum += share.parameters;
  }
  return sum;
}

uint64_t WeightReport::bytes() const {
  uint64_t sum = 0;
  for (const WeightShare& share : shares) {
    sum += share.bytes;
  }
  return sum;
}

std::string WeightReport::ToJson(WeightChoice choice, std::string_view cache) const {
  std::string json =
      fmt::format(R"({{"weights": "{}", "cache": "{}", "load_s": {:.4f}, "resident_bytes": {}, )"
                  R"("parameters": {}, "weight_bytes": {}, "shares": [)",
                  NameOf(choice), cache, load_s, resident_bytes, parameters(), bytes());
  for (size_t i = 0; i < shares.size(); ++i) {
    const WeightShare& share = shares[i];
    json += fmt::format(R"({}{{"role": "{}", "format": "{}", "parameters": {}, "bytes": {}}})",
                        i == 0 ? "" : ", ", NameOf(share.role), NameOf(share.format),
                        share.parameters, share.bytes);
  }
  return json + "]}";
}

absl::StatusOr<WeightReport> MeasureWeights(const std::string& model_dir, WeightChoice choice,
                                            uint32_t threads) {
  WeightReport report;
  const SteadyClock clock;
  SY_ASSIGN_OR_RETURN(const uint64_t before, ResidentBytes());
  const Instant started = clock.Now();
  SY_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(model_dir));
  const LoadOptions options{.threads = threads};
  SY_ASSIGN_OR_RETURN(const RouterWeights weights, checkpoint.LoadRouterWeights(choice, options));
  SY_ASSIGN_OR_RETURN(const std::vector<ExpertWeights> experts,
                      checkpoint.LoadExperts(AllExperts(checkpoint.spec()), choice, options));
  report.load_s = std::chrono::duration<double>(clock.Now() - started).count();
  SY_ASSIGN_OR_RETURN(const uint64_t after, ResidentBytes());
  report.resident_bytes = after > before ? after - before : 0;
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> router, checkpoint.PlanRouter(choice));
  SY_ASSIGN_OR_RETURN(const std::vector<PlannedTensor> shards, checkpoint.PlanExperts(choice));
  Count(router, report);
  Count(shards, report);
  return report;
}

}  // namespace switchyard
