#ifndef SWITCHYARD_LIBS_DISPATCH_DISPATCH_PLAN_H_
#define SWITCHYARD_LIBS_DISPATCH_DISPATCH_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/ids.h"
#include "libs/dispatch/replica_selector.h"
#include "libs/placement/route_table.h"
#include "libs/wire/frame.h"

namespace switchyard {

// One frame to one shard: ranges of DispatchPlan's tables.
struct FragmentPlan {
  uint32_t shard_index = 0;  // Into the placement's shards.
  uint32_t first_entry = 0;
  uint32_t entry_count = 0;
  uint32_t first_row = 0;
  uint32_t row_count = 0;

  friend bool operator==(const FragmentPlan&, const FragmentPlan&) = default;
};

// DispatchPlan says which rows of a batch go to which shard in which frame. A value; reused between
// calls so that its tables keep their memory.
struct DispatchPlan {
  std::vector<FragmentPlan> fragments;  // By shard, then by row.
  std::vector<RouteEntry> entries;  // As they go over the wire: ascending (expert, row of frame).
  std::vector<uint32_t> rows;       // Row of the frame to row of the batch.

  // Row of the batch that entry `entry` (of all entries) of `fragment` is about.
  uint32_t BatchRow(const FragmentPlan& fragment, uint32_t entry) const {
    return rows[fragment.first_row + entries[entry].row];
  }
};

struct DispatchPlanInput {
  LayerId layer;
  uint32_t row_count = 0;
  uint32_t top_k = 0;
  std::span<const uint16_t> experts;  // [row_count][top_k]
  const RouteTable* routes = nullptr;
  std::span<const uint8_t> usable;  // By shard index.
  uint32_t entries_max = 0;         // Per fragment; at least 1.
};

// DispatchPlanner fills plans. One owner; holds scratch only.
class DispatchPlanner {
 public:
  // InvalidArgument for a layer or expert outside the shape, or an expert twice in a row.
  // Unavailable when an expert has no usable holder. Rows are cut into fragments between rows where
  // that does not cost a fragment of its own.
  absl::Status Build(const DispatchPlanInput& input, DispatchPlan& plan);

 private:
  struct Item {
    uint32_t row = 0;
    uint16_t slot = 0;
    uint16_t expert = 0;
  };

  absl::Status FindActivated(const DispatchPlanInput& input);
  void SortByShard(const DispatchPlanInput& input);
  void Cut(uint32_t shard, std::span<const Item> items, uint32_t entries_max, DispatchPlan& plan);
  void AddFragment(uint32_t shard, std::span<const Item> items, DispatchPlan& plan);

  ReplicaSelector selector_;
  std::vector<uint8_t> seen_;          // By expert.
  std::vector<uint16_t> activated_;    // Ascending.
  std::vector<uint32_t> choice_;       // By activated expert.
  std::vector<uint32_t> shard_of_;     // By expert.
  std::vector<uint32_t> shard_first_;  // Where a shard's items begin; one extra.
  std::vector<Item> items_;            // By shard, row, slot.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_DISPATCH_DISPATCH_PLAN_H_
