#include "libs/experts/load_counter.h"

#include <cstddef>

#include "libs/base/check.h"

namespace switchyard {

LoadCounter::LoadCounter(ExpertShape shape)
    : shape_(shape), cells_(size_t{shape.moe_layer_count()} * shape.expert_count) {}

size_t LoadCounter::IndexOf(LayerId layer, ExpertId expert) const {
  SY_CHECK(layer.value() >= shape_.first_moe_layer && layer.value() < shape_.layer_count &&
           expert.value() < shape_.expert_count);
  return (size_t{layer.value()} - shape_.first_moe_layer) * shape_.expert_count + expert.value();
}

void LoadCounter::Add(LayerId layer, ExpertId expert, uint32_t rows) {
  Cell& cell = cells_[IndexOf(layer, expert)];
  cell.rows.fetch_add(rows, std::memory_order_relaxed);
  cell.activations.fetch_add(1, std::memory_order_relaxed);
}

ExpertLoad LoadCounter::Of(LayerId layer, ExpertId expert) const {
  const Cell& cell = cells_[IndexOf(layer, expert)];
  return {.rows = cell.rows.load(std::memory_order_relaxed),
          .activations = cell.activations.load(std::memory_order_relaxed)};
}

}  // namespace switchyard
