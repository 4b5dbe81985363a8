#include "loadtest/trace.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "loadtest/json_lines.h"
#include "loadtest/length_distribution.h"

namespace switchyard {
namespace {

constexpr size_t kRequestsMax = 10'000'000;
constexpr double kAtMax = 1e9;  // Seconds.

// A sequence of tokens for a name: the same in every run with that seed.
uint64_t SeedOf(uint64_t seed, std::string_view kind, std::string_view name) {
  uint64_t hash = Mix64(seed);
  for (const std::string_view part : {kind, name}) {
    for (const char c : part) {
      hash = Mix64(hash ^ static_cast<unsigned char>(c));
    }
    hash = Mix64(hash ^ 0x100);
  }
  return hash;
}

class TraceReader {
 public:
  TraceReader(const TraceOptions& options, std::vector<Tenant> tenants) : options_(options) {
    trace_.tenants = std::move(tenants);
    if (trace_.tenants.size() == 1) {
      common_key_ = trace_.tenants[0].api_key;
    }
    for (size_t i = 0; i < trace_.tenants.size(); ++i) {
      tenant_by_name_[trace_.tenants[i].name] = static_cast<uint32_t>(i);
    }
  }

  absl::Status Add(const JsonLine& line) {
    if (trace_.requests.size() == kRequestsMax) {
      return InvalidArgument("more than {} requests", kRequestsMax);
    }
    RequestSpec spec;
    spec.seed = CounterRandom(options_.seed, 2, trace_.requests.size());
    SY_ASSIGN_OR_RETURN(spec.at_s, ReadTime(line));
    SY_ASSIGN_OR_RETURN(const auto input, ReadTokens(line, "input_length"));
    SY_ASSIGN_OR_RETURN(const auto output, ReadTokens(line, "output_length"));
    if (!input || !output) {
      return InvalidArgument("input_length and output_length are required");
    }
    spec.prompt_tokens = *input;
    spec.output_tokens = *output;
    SY_RETURN_IF_ERROR(ReadSharing(line, &spec));
    SY_ASSIGN_OR_RETURN(spec.tenant, ReadTenant(line));
    trace_.requests.push_back(std::move(spec));
    return absl::OkStatus();
  }

  Trace Take() {
    std::stable_sort(trace_.requests.begin(), trace_.requests.end(),
                     [](const RequestSpec& a, const RequestSpec& b) { return a.at_s < b.at_s; });
    return std::move(trace_);
  }

 private:
  absl::StatusOr<double> ReadTime(const JsonLine& line) const {
    struct Name {
      const char* name;
      double seconds;
    };

    for (const Name& name : {Name{"timestamp_ms", 1e-3}, Name{"timestamp", 1e-3},
                             Name{"arrival_s", 1.0}, Name{"arrival", 1.0}}) {
      SY_ASSIGN_OR_RETURN(const std::optional<double> value, line.Number(name.name));
      if (!value) {
        continue;
      }
      const double at_s = *value * name.seconds / options_.speed;
      if (!(at_s >= 0.0 && at_s <= kAtMax)) {
        return InvalidArgument("{} is out of range", name.name);
      }
      return at_s;
    }
    return InvalidArgument("timestamp_ms or arrival_s is required");
  }

  static absl::StatusOr<std::optional<uint32_t>> ReadTokens(const JsonLine& line,
                                                            const char* name) {
    SY_ASSIGN_OR_RETURN(const std::optional<double> value, line.Number(name));
    if (!value) {
      return std::optional<uint32_t>();
    }
    if (!(*value >= 1.0 && *value <= LengthDistribution::kTokensMax) ||
        *value != std::floor(*value)) {
      return InvalidArgument("{} is not whole, 1 to {}", name, LengthDistribution::kTokensMax);
    }
    return std::optional<uint32_t>(static_cast<uint32_t>(*value));
  }

  // Which tokens a request has in common with others.
  absl::Status ReadSharing(const JsonLine& line, RequestSpec* spec) const {
    SY_ASSIGN_OR_RETURN(const std::vector<uint64_t> hash_ids, line.Numbers("hash_ids"));
    SY_ASSIGN_OR_RETURN(const std::string session, line.Text("session_id"));
    SY_ASSIGN_OR_RETURN(const std::string prefix, line.Text("prefix_id"));
    SY_ASSIGN_OR_RETURN(const auto prefix_length, ReadTokens(line, "prefix_length"));
    if (!hash_ids.empty()) {
      for (const uint64_t id : hash_ids) {
        spec->block_seeds.push_back(CounterRandom(options_.seed, 3, id));
      }
      spec->block_tokens = options_.block_tokens;
    } else if (!session.empty()) {
      spec->prefix_seed = SeedOf(options_.seed, "session", session);
      spec->prefix_tokens = spec->prompt_tokens;
    } else if (!prefix.empty()) {
      if (!prefix_length) {
        return InvalidArgument("prefix_id without prefix_length");
      }
      spec->prefix_seed = SeedOf(options_.seed, "prefix", prefix);
      spec->prefix_tokens = std::min(*prefix_length, spec->prompt_tokens);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<uint32_t> ReadTenant(const JsonLine& line) {
    SY_ASSIGN_OR_RETURN(const std::string name, line.Text("tenant"));
    if (name.empty()) {
      return 0;
    }
    const auto [it, inserted] =
        tenant_by_name_.emplace(name, static_cast<uint32_t>(trace_.tenants.size()));
    if (inserted) {
      if (trace_.tenants.size() == kTenantsMax || name.size() > 256) {
        return InvalidArgument("a tenant too many or with a name longer than 256 bytes");
      }
      trace_.tenants.push_back({.name = name, .api_key = common_key_});
    }
    return it->second;
  }

  const TraceOptions options_;
  Trace trace_;
  std::map<std::string, uint32_t> tenant_by_name_;
  std::string common_key_;
};

}  // namespace

absl::StatusOr<Trace> ParseTrace(std::string_view text, const TraceOptions& options,
                                 std::vector<Tenant> tenants) {
  TraceReader reader(options, std::move(tenants));
  SY_RETURN_IF_ERROR(ForEachJsonLine(text, [&](const JsonLine& line) { return reader.Add(line); }));
  Trace trace = reader.Take();
  if (trace.requests.empty()) {
    return InvalidArgument("no request");
  }
  return trace;
}

}  // namespace switchyard
