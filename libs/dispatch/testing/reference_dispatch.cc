#include "libs/dispatch/testing/reference_dispatch.h"

#include <set>

#include "libs/base/check.h"

namespace switchyard {
namespace {

void Round(std::span<float> row, Dtype dtype) {
  SY_CHECK(dtype != Dtype::kF16);
  for (float& value : row) {
    value = dtype == Dtype::kBf16 ? Bf16ToF32(F32ToBf16(value)) : value;
  }
}

}  // namespace

std::map<uint16_t, uint32_t> ReferenceChoice(const DispatchPlanInput& input) {
  const std::set<uint16_t> activated(input.experts.begin(), input.experts.end());
  std::map<uint16_t, std::set<uint32_t>> holders;
  for (const uint16_t expert : activated) {
    for (const uint32_t shard : input.routes->HoldersOf(input.layer, ExpertId(expert))) {
      if (input.usable[shard] != 0) {
        holders[expert].insert(shard);
      }
    }
  }
  std::map<uint16_t, uint32_t> choice;
  std::map<uint32_t, uint32_t> load;
  for (const bool fixed : {true, false}) {
    for (const auto& [expert, shards] : holders) {
      if ((shards.size() == 1) != fixed) {
        continue;
      }
      uint32_t best = *shards.begin();
      for (const uint32_t shard : shards) {
        best = load[shard] < load[best] ? shard : best;
      }
      choice[expert] = best;
      ++load[best];
    }
  }
  return choice;
}

std::vector<float> ReferenceDispatch(const RoutedRows& rows, uint32_t hidden_size, Dtype dtype,
                                     const ExpertFunction& expert) {
  std::vector<float> out(rows.experts.size() * hidden_size);
  const size_t top_k = rows.row_count == 0 ? 0 : rows.experts.size() / rows.row_count;
  for (size_t i = 0; i < rows.experts.size(); ++i) {
    const auto source = rows.rows.subspan(i / top_k * hidden_size, hidden_size);
    std::vector<float> row(source.begin(), source.end());
    Round(row, dtype);
    const std::span<float> answer = std::span(out).subspan(i * hidden_size, hidden_size);
    expert(rows.experts[i], row, answer);
    Round(answer, dtype);
  }
  return out;
}

}  // namespace switchyard
