#include "loadtest/slo.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr std::array<Metric, 4> kMetrics = {Metric::kTtft, Metric::kTpot, Metric::kItl,
                                            Metric::kE2el};

absl::StatusOr<SloBound> ParseBound(std::string_view text) {
  const size_t colon = text.find(':');
  for (const Metric metric : kMetrics) {
    if (colon == std::string_view::npos || text.substr(0, colon) != NameOf(metric)) {
      continue;
    }
    const std::string_view number = text.substr(colon + 1);
    SloBound bound{.metric = metric};
    const auto [end, error] =
        std::from_chars(number.data(), number.data() + number.size(), bound.bound_ms);
    if (error == std::errc() && end == number.data() + number.size() && bound.bound_ms > 0.0) {
      return bound;
    }
  }
  return InvalidArgument("'{}' is not ttft, tpot, itl or e2el with milliseconds, like ttft:500",
                         text);
}

}  // namespace

std::string_view NameOf(Metric metric) {
  switch (metric) {
    case Metric::kTtft:
      return "ttft";
    case Metric::kTpot:
      return "tpot";
    case Metric::kItl:
      return "itl";
    case Metric::kE2el:
      break;
  }
  return "e2el";
}

std::optional<double> Measure(const RequestRecord& record, Metric metric) {
  if (record.outcome != Outcome::kCompleted) {
    return std::nullopt;
  }
  const bool has_token = record.first_token_s >= 0.0;
  switch (metric) {
    case Metric::kTtft:
      return has_token ? std::optional((record.first_token_s - record.start_s) * 1e3)
                       : std::nullopt;
    case Metric::kTpot:
      return has_token && record.output_tokens > 1
                 ? std::optional((record.last_token_s - record.first_token_s) * 1e3 /
                                 (record.output_tokens - 1))
                 : std::nullopt;
    case Metric::kItl:
      return record.gaps_ms.empty() ? std::nullopt
                                    : std::optional<double>(*std::max_element(
                                          record.gaps_ms.begin(), record.gaps_ms.end()));
    case Metric::kE2el:
      break;
  }
  return (record.end_s - record.start_s) * 1e3;
}

absl::StatusOr<std::vector<SloBound>> ParseSlo(std::string_view text) {
  std::vector<SloBound> bounds;
  while (true) {
    const size_t comma = text.find(',');
    SY_ASSIGN_OR_RETURN(const SloBound bound, ParseBound(text.substr(0, comma)));
    bounds.push_back(bound);
    if (comma == std::string_view::npos) {
      return bounds;
    }
    text.remove_prefix(comma + 1);
  }
}

bool KeepsSlo(const RequestRecord& record, const std::vector<SloBound>& bounds) {
  return record.outcome == Outcome::kCompleted &&
         std::all_of(bounds.begin(), bounds.end(), [&](const SloBound& bound) {
           return Measure(record, bound.metric).value_or(0.0) <= bound.bound_ms;
         });
}

}  // namespace switchyard
