#ifndef SWITCHYARD_LOADTEST_TENANTS_H_
#define SWITCHYARD_LOADTEST_TENANTS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// One source of requests: a name for the report, a key for the server, a share of the load.
// A value; any thread. Keys never reach an output.
struct Tenant {
  std::string name;
  std::string api_key;  // Empty for none.
  double weight = 1.0;
};

inline constexpr size_t kTenantsMax = 10'000;

// One JSON object a line: {"name": "a", "api_key": "…", "weight": 2.5}; the name is required, lines
// that are empty or begin with # are skipped. InvalidArgument names the line.
absl::StatusOr<std::vector<Tenant>> ParseTenants(std::string_view text);

// `count` tenants "tenant-0", …, of equal weight, the keys dealt out in turn.
std::vector<Tenant> MakeTenants(size_t count, const std::vector<std::string>& api_keys);

// The tenant at `unit` in [0, 1) of the line on which each takes as much as it weighs.
uint32_t PickTenant(const std::vector<Tenant>& tenants, double unit);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_TENANTS_H_
