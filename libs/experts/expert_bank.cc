#include "libs/experts/expert_bank.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr size_t kOutside = SIZE_MAX;

size_t IndexOf(const ExpertShape& shape, LayerId layer, ExpertId expert) {
  if (layer.value() < shape.first_moe_layer || layer.value() >= shape.layer_count ||
      expert.value() >= shape.expert_count) {
    return kOutside;
  }
  return (size_t{layer.value()} - shape.first_moe_layer) * shape.expert_count + expert.value();
}

}  // namespace

ExpertBank::ExpertBank(ExpertShape shape)
    : shape_(shape), experts_(size_t{shape.moe_layer_count()} * shape.expert_count) {}

absl::Status ExpertBank::Load(LayerId layer, ExpertId expert,
                              std::shared_ptr<const ExpertWeights> weights) {
  SY_CHECK(weights != nullptr);
  const size_t index = IndexOf(shape_, layer, expert);
  if (index == kOutside) {
    return InvalidArgument("bank: layer {} expert {}, shape has layers [{}, {}) of {} experts",
                           layer, expert, shape_.first_moe_layer, shape_.layer_count,
                           shape_.expert_count);
  }
  const ExpertWeights& w = *weights;
  const bool fits = w.gate.rows == w.up.rows && w.gate.columns == w.up.columns &&
                    w.down.rows == w.gate.columns && w.down.columns == w.gate.rows &&
                    w.gate.format == w.up.format;
  if (!fits) {
    return InvalidArgument("bank: layer {} expert {} has gate {}x{}, up {}x{}, down {}x{}", layer,
                           expert, w.gate.rows, w.gate.columns, w.up.rows, w.up.columns,
                           w.down.rows, w.down.columns);
  }
  const MutexLock lock(&mutex_);
  const auto layer_begin = experts_.begin() + static_cast<ptrdiff_t>(index - expert.value());
  for (auto other = layer_begin; other != layer_begin + shape_.expert_count; ++other) {
    if (*other == nullptr) {
      continue;
    }
    if ((*other)->gate.format != w.gate.format || (*other)->down.format != w.down.format) {
      return InvalidArgument("bank: layer {} expert {} is {}, the others of the layer are {}",
                             layer, expert, NameOf(w.gate.format), NameOf((*other)->gate.format));
    }
    break;
  }
  experts_[index].swap(weights);
  return absl::OkStatus();
}

void ExpertBank::Drop(LayerId layer, ExpertId expert) {
  const size_t index = IndexOf(shape_, layer, expert);
  if (index == kOutside) {
    return;
  }
  std::shared_ptr<const ExpertWeights> dropped;  // Freed after the lock.
  const MutexLock lock(&mutex_);
  experts_[index].swap(dropped);
}

std::shared_ptr<const ExpertWeights> ExpertBank::Find(LayerId layer, ExpertId expert) const {
  const size_t index = IndexOf(shape_, layer, expert);
  if (index == kOutside) {
    return nullptr;
  }
  const MutexLock lock(&mutex_);
  return experts_[index];
}

uint32_t ExpertBank::resident_count() const {
  const MutexLock lock(&mutex_);
  return static_cast<uint32_t>(
      std::ranges::count_if(experts_, [](const auto& expert) { return expert != nullptr; }));
}

}  // namespace switchyard
