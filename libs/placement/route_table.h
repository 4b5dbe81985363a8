#ifndef SWITCHYARD_LIBS_PLACEMENT_ROUTE_TABLE_H_
#define SWITCHYARD_LIBS_PLACEMENT_ROUTE_TABLE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"
#include "libs/placement/placement.h"

namespace switchyard {

// RouteTable answers "which shards hold expert e of layer l" for one placement epoch.
//
// Immutable after Build(); shared as std::shared_ptr<const RouteTable>, read from any thread.
class RouteTable {
 public:
  // The status of ValidatePlacement: such a table could strand a token.
  static absl::StatusOr<RouteTable> Build(Placement placement);

  // Indices into placement().shards, ascending. Never empty for a MoE layer of the shape.
  std::span<const uint32_t> HoldersOf(LayerId layer, ExpertId expert) const;

  const Placement& placement() const { return placement_; }

  EpochId epoch() const { return placement_.epoch; }

 private:
  RouteTable(Placement placement, std::vector<uint32_t> first, std::vector<uint32_t> holders);

  Placement placement_;
  std::vector<uint32_t>
      first_;  // Per (MoE layer, expert): where its holders begin; one extra at the end.
  std::vector<uint32_t> holders_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_PLACEMENT_ROUTE_TABLE_H_
