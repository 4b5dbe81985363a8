#include "libs/placement/route_table.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {

absl::StatusOr<RouteTable> RouteTable::Build(Placement placement) {
  SY_RETURN_IF_ERROR(ValidatePlacement(placement));
  std::vector<uint32_t> first;
  std::vector<uint32_t> holders;
  first.reserve(size_t{placement.shape.moe_layer_count()} * placement.shape.expert_count + 1);
  holders.reserve(placement.replicas.size());
  const Replica* previous = nullptr;
  for (const Replica& replica : placement.replicas) {
    if (previous == nullptr || previous->layer != replica.layer ||
        previous->expert != replica.expert) {
      first.push_back(static_cast<uint32_t>(holders.size()));
    }
    const auto shard =
        std::ranges::lower_bound(placement.shards, replica.shard, {}, &ShardInfo::shard);
    holders.push_back(static_cast<uint32_t>(shard - placement.shards.begin()));
    previous = &replica;
  }
  first.push_back(static_cast<uint32_t>(holders.size()));
  return RouteTable(std::move(placement), std::move(first), std::move(holders));
}

RouteTable::RouteTable(Placement placement, std::vector<uint32_t> first,
                       std::vector<uint32_t> holders)
    : placement_(std::move(placement)), first_(std::move(first)), holders_(std::move(holders)) {}

std::span<const uint32_t> RouteTable::HoldersOf(LayerId layer, ExpertId expert) const {
  const ExpertShape& shape = placement_.shape;
  SY_CHECK(layer.value() >= shape.first_moe_layer && layer.value() < shape.layer_count &&
           expert.value() < shape.expert_count);
  const size_t index = size_t{layer.value()} * shape.expert_count + expert.value() -
                       size_t{shape.first_moe_layer} * shape.expert_count;
  return std::span(holders_).subspan(first_[index], first_[index + 1] - first_[index]);
}

}  // namespace switchyard
