#include "loadtest/tenants.h"

#include <set>
#include <utility>

#include "libs/base/status.h"
#include "loadtest/json_lines.h"

namespace switchyard {
namespace {

bool IsHeaderText(const std::string& text) {
  for (const char c : text) {
    if (c < 0x21 || c > 0x7e) {
      return false;
    }
  }
  return true;
}

absl::StatusOr<Tenant> ReadTenant(const JsonLine& line) {
  Tenant tenant;
  SY_ASSIGN_OR_RETURN(tenant.name, line.Text("name"));
  SY_ASSIGN_OR_RETURN(tenant.api_key, line.Text("api_key"));
  SY_ASSIGN_OR_RETURN(const auto weight, line.Number("weight"));
  tenant.weight = weight.value_or(1.0);
  if (tenant.name.empty() || tenant.name.size() > 256) {
    return InvalidArgument("name must have 1 to 256 bytes");
  }
  if (!IsHeaderText(tenant.api_key)) {
    return InvalidArgument("api_key must be printable ASCII without spaces");
  }
  if (!(tenant.weight > 0.0 && tenant.weight <= 1e9)) {
    return InvalidArgument("weight {} is not in (0, 1e9]", tenant.weight);
  }
  return tenant;
}

}  // namespace

absl::StatusOr<std::vector<Tenant>> ParseTenants(std::string_view text) {
  std::vector<Tenant> tenants;
  std::set<std::string> names;
  SY_RETURN_IF_ERROR(ForEachJsonLine(text, [&](const JsonLine& line) -> absl::Status {
    SY_ASSIGN_OR_RETURN(Tenant tenant, ReadTenant(line));
    if (!names.insert(tenant.name).second) {
      return InvalidArgument("the name is there already");
    }
    if (tenants.size() == kTenantsMax) {
      return InvalidArgument("more than {} tenants", kTenantsMax);
    }
    tenants.push_back(std::move(tenant));
    return absl::OkStatus();
  }));
  if (tenants.empty()) {
    return InvalidArgument("no tenant");
  }
  return tenants;
}

std::vector<Tenant> MakeTenants(size_t count, const std::vector<std::string>& api_keys) {
  std::vector<Tenant> tenants;
  for (size_t i = 0; i < count; ++i) {
    tenants.push_back({.name = fmt::format("tenant-{}", i),
                       .api_key = api_keys.empty() ? "" : api_keys[i % api_keys.size()]});
  }
  return tenants;
}

uint32_t PickTenant(const std::vector<Tenant>& tenants, double unit) {
  double total = 0.0;
  for (const Tenant& tenant : tenants) {
    total += tenant.weight;
  }
  double left = unit * total;
  for (size_t i = 0; i + 1 < tenants.size(); ++i) {
    left -= tenants[i].weight;
    if (left < 0.0) {
      return static_cast<uint32_t>(i);
    }
  }
  return static_cast<uint32_t>(tenants.size() - 1);
}

}  // namespace switchyard
