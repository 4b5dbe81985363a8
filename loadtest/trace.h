#ifndef SWITCHYARD_LOADTEST_TRACE_H_
#define SWITCHYARD_LOADTEST_TRACE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "loadtest/request_spec.h"
#include "loadtest/tenants.h"

namespace switchyard {

struct TraceOptions {
  double speed = 1.0;           // Times are divided by it.
  uint32_t block_tokens = 512;  // Tokens that one entry of hash_ids stands for.
  uint64_t seed = 0;
};

// A recorded load: requests in the order they are due, and their tenants. A value; any thread.
struct Trace {
  std::vector<RequestSpec> requests;
  std::vector<Tenant> tenants;
};

// One JSON object a line; the README lists the members. Tenants are found in `tenants` by name;
// those not there are added without a key, or with that of the only tenant. InvalidArgument names
// the line.
absl::StatusOr<Trace> ParseTrace(std::string_view text, const TraceOptions& options,
                                 std::vector<Tenant> tenants);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_TRACE_H_
