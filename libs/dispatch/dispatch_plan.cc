#include "libs/dispatch/dispatch_plan.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <tuple>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {

absl::Status DispatchPlanner::Build(const DispatchPlanInput& input, DispatchPlan& plan) {
  SY_CHECK(input.routes != nullptr && input.entries_max > 0);
  SY_CHECK(input.experts.size() == size_t{input.row_count} * input.top_k);
  plan.fragments.clear();
  plan.entries.clear();
  plan.rows.clear();
  SY_RETURN_IF_ERROR(FindActivated(input));
  SY_RETURN_IF_ERROR(
      selector_.Choose(*input.routes, input.layer, activated_, input.usable, choice_));
  for (size_t i = 0; i < activated_.size(); ++i) {
    shard_of_[activated_[i]] = choice_[i];
  }
  SortByShard(input);
  for (uint32_t shard = 0; shard < input.usable.size(); ++shard) {
    const std::span<const Item> own = std::span(items_).subspan(
        shard_first_[shard], shard_first_[shard + 1] - shard_first_[shard]);
    Cut(shard, own, input.entries_max, plan);
  }
  return absl::OkStatus();
}

absl::Status DispatchPlanner::FindActivated(const DispatchPlanInput& input) {
  const ExpertShape& shape = input.routes->placement().shape;
  if (input.layer.value() < shape.first_moe_layer || input.layer.value() >= shape.layer_count) {
    return InvalidArgument("dispatch: layer {}, MoE layers are [{}, {})", input.layer,
                           shape.first_moe_layer, shape.layer_count);
  }
  if (input.top_k > kSlotsMax) {
    return InvalidArgument("dispatch: {} experts per row, limit {}", input.top_k, kSlotsMax);
  }
  seen_.assign(shape.expert_count, 0);
  shard_of_.resize(shape.expert_count);
  for (uint32_t row = 0; row < input.row_count; ++row) {
    const auto experts = input.experts.subspan(size_t{row} * input.top_k, input.top_k);
    for (size_t slot = 0; slot < experts.size(); ++slot) {
      const uint16_t expert = experts[slot];
      if (expert >= shape.expert_count) {
        return InvalidArgument("dispatch: row {} names expert {} of {}", row, expert,
                               shape.expert_count);
      }
      if (std::ranges::find(experts.first(slot), expert) !=
          experts.begin() + static_cast<ptrdiff_t>(slot)) {
        return InvalidArgument("dispatch: row {} names expert {} twice", row, expert);
      }
      seen_[expert] = 1;
    }
  }
  activated_.clear();
  for (uint32_t expert = 0; expert < shape.expert_count; ++expert) {
    if (seen_[expert] != 0) {
      activated_.push_back(static_cast<uint16_t>(expert));
    }
  }
  return absl::OkStatus();
}

// A counting sort: stable, so a shard's items stay in the order of rows and slots.
void DispatchPlanner::SortByShard(const DispatchPlanInput& input) {
  shard_first_.assign(input.usable.size() + 1, 0);
  for (const uint16_t expert : input.experts) {
    ++shard_first_[shard_of_[expert] + 1];
  }
  std::partial_sum(shard_first_.begin(), shard_first_.end(), shard_first_.begin());
  items_.resize(input.experts.size());
  for (uint32_t row = 0; row < input.row_count; ++row) {
    for (uint32_t slot = 0; slot < input.top_k; ++slot) {
      const uint16_t expert = input.experts[size_t{row} * input.top_k + slot];
      items_[shard_first_[shard_of_[expert]]++] = {
          .row = row, .slot = static_cast<uint16_t>(slot), .expert = expert};
    }
  }
  // Each beginning has moved to its end: the next one's beginning.
  std::shift_right(shard_first_.begin(), shard_first_.end(), 1);
  shard_first_[0] = 0;
}

void DispatchPlanner::Cut(uint32_t shard, std::span<const Item> items, uint32_t entries_max,
                          DispatchPlan& plan) {
  size_t begin = 0;
  size_t end = 0;
  while (end < items.size()) {
    size_t row_end = end + 1;
    while (row_end < items.size() && items[row_end].row == items[end].row) {
      ++row_end;
    }
    if (row_end - begin <= entries_max) {
      end = row_end;
      continue;
    }
    if (begin < end) {
      AddFragment(shard, items.subspan(begin, end - begin), plan);
      begin = end;
      continue;
    }
    // One row alone has more experts here than a frame may answer.
    AddFragment(shard, items.subspan(begin, entries_max), plan);
    begin += entries_max;
    end = begin;
  }
  if (begin < end) {
    AddFragment(shard, items.subspan(begin, end - begin), plan);
  }
}

void DispatchPlanner::AddFragment(uint32_t shard, std::span<const Item> items, DispatchPlan& plan) {
  FragmentPlan fragment{.shard_index = shard,
                        .first_entry = static_cast<uint32_t>(plan.entries.size()),
                        .entry_count = static_cast<uint32_t>(items.size()),
                        .first_row = static_cast<uint32_t>(plan.rows.size()),
                        .row_count = 0};
  for (const Item& item : items) {
    if (fragment.row_count == 0 || plan.rows.back() != item.row) {
      plan.rows.push_back(item.row);
      ++fragment.row_count;
    }
    plan.entries.push_back(
        {.expert = item.expert, .slot = item.slot, .row = fragment.row_count - 1});
  }
  std::sort(plan.entries.begin() + fragment.first_entry, plan.entries.end(),
            [](const RouteEntry& a, const RouteEntry& b) {
              return std::tie(a.expert, a.row) < std::tie(b.expert, b.row);
            });
  plan.fragments.push_back(fragment);
}

}  // namespace switchyard
