#ifndef SWITCHYARD_LOADTEST_SLO_H_
#define SWITCHYARD_LOADTEST_SLO_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "loadtest/request_record.h"

namespace switchyard {

// What is measured of a request. kItl has a sample for each two neighbouring chunks, the others one
// for each request. Values, any thread.
enum class Metric : uint8_t { kTtft, kTpot, kItl, kE2el };

// "ttft", "tpot", "itl", "e2el".
std::string_view NameOf(Metric metric);

// The figure of a completed request, in milliseconds; for kItl the longest gap. Nothing where it
// has none: TPOT and ITL need two tokens.
std::optional<double> Measure(const RequestRecord& record, Metric metric);

struct SloBound {
  Metric metric = Metric::kTtft;
  double bound_ms = 0.0;
};

// "ttft:500,itl:100": bounds in milliseconds.
absl::StatusOr<std::vector<SloBound>> ParseSlo(std::string_view text);

// True if the request completed and kept every bound that applies to it.
bool KeepsSlo(const RequestRecord& record, const std::vector<SloBound>& bounds);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_SLO_H_
