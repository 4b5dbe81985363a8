#include "libs/model/gate.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "libs/base/check.h"

namespace switchyard {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Fills output.scores: [rows][experts] sigmoid scores, then one row of biased scores and one of
// group scores as working memory.
void ComputeScores(const GateInput& input, GateOutput& output) {
  const ModelSpec& spec = input.spec;
  const size_t experts = spec.expert_count;
  SY_CHECK(input.layer.gate.rows == experts && input.layer.gate_bias.size() == experts);
  output.scores.resize(input.row_count * experts + experts + spec.group_count);
  const GemmArgs gemm{.x = input.x,
                      .x_stride = spec.hidden_size,
                      .row_count = input.row_count,
                      .w = input.layer.gate,
                      .bias = nullptr,
                      .y = output.scores.data(),
                      .y_stride = experts,
                      .column_begin = 0,
                      .column_end = spec.expert_count};
  if (input.row_count == 0) {
    return;
  }
  if (input.pool != nullptr) {
    ParallelGemm(input.kernels, *input.pool, gemm);
  } else {
    input.kernels.gemm(gemm);
  }
  input.kernels.sigmoid(output.scores.data(), output.scores.data(), input.row_count * experts);
}

// Index of the largest value, the lowest index of equals; kNone when all are minus infinity.
uint32_t ArgMax(std::span<const float> values) {
  uint32_t best = kNone;
  float best_value = kLowest;
  for (uint32_t i = 0; i < values.size(); ++i) {
    if (values[i] > best_value) {
      best = i;
      best_value = values[i];
    }
  }
  return best;
}

// Sum of the two largest of `values`, which has at least two.
float BestTwoSum(std::span<const float> values) {
  float first = kLowest;
  float second = kLowest;
  for (const float value : values) {
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  return first + second;
}

// Replaces the biased scores of groups that are not among the best by minus infinity. `groups` is
// working memory of group_count.
void MaskGroups(const ModelSpec& spec, std::span<float> biased, std::span<float> groups) {
  if (spec.top_k_groups == spec.group_count) {
    return;
  }
  const uint32_t group_size = spec.expert_count / spec.group_count;
  for (uint32_t g = 0; g < spec.group_count; ++g) {
    groups[g] = BestTwoSum(biased.subspan(size_t{g} * group_size, group_size));
  }
  // The chosen groups are marked minus infinity here, which also takes them out of the race.
  for (uint32_t k = 0; k < spec.top_k_groups; ++k) {
    groups[ArgMax(groups)] = kLowest;
  }
  for (uint32_t g = 0; g < spec.group_count; ++g) {
    if (groups[g] != kLowest) {
      std::fill_n(biased.begin() + g * group_size, group_size, kLowest);
    }
  }
}

void ChooseExperts(const ModelSpec& spec, std::span<float> biased, std::span<float> groups,
                   std::span<uint16_t> experts) {
  MaskGroups(spec, biased, groups);
  for (uint16_t& expert : experts) {
    const uint32_t best = ArgMax(biased);
    expert = static_cast<uint16_t>(best);
    biased[best] = kLowest;
  }
}

void WeighRow(const ModelSpec& spec, std::span<const float> scores,
              std::span<const uint16_t> experts, std::span<float> weights) {
  float sum = 0.0F;
  for (size_t k = 0; k < experts.size(); ++k) {
    weights[k] = scores[experts[k]];
    sum += weights[k];
  }
  if (spec.norm_top_k) {
    sum += 1e-20F;
    for (float& weight : weights) {
      weight /= sum;
    }
  }
  for (float& weight : weights) {
    weight *= spec.routed_scaling_factor;
  }
}

// Finite, also as the sum of two, so that minus infinity can mean "out of the race"; NaN loses to
// every other number.
float ForChoice(float score, float bias) {
  constexpr float kMax = std::numeric_limits<float>::max() / 4;
  const float biased = score + bias;
  return std::isnan(biased) ? -kMax : std::clamp(biased, -kMax / 2, kMax);
}

}  // namespace

void RunGate(const GateInput& input, GateOutput& output) {
  ComputeScores(input, output);
  const ModelSpec& spec = input.spec;
  const size_t experts = spec.expert_count;
  output.experts.resize(size_t{input.row_count} * spec.top_k);
  output.weights.resize(size_t{input.row_count} * spec.top_k);
  const std::span<float> memory(output.scores);
  const std::span<float> biased = memory.subspan(input.row_count * experts, experts);
  const std::span<float> groups = memory.subspan((size_t{input.row_count} + 1) * experts);
  for (uint32_t row = 0; row < input.row_count; ++row) {
    const std::span<const float> scores = memory.subspan(row * experts, experts);
    const size_t slot = size_t{row} * spec.top_k;
    const std::span<uint16_t> chosen = std::span(output.experts).subspan(slot, spec.top_k);
    for (size_t e = 0; e < experts; ++e) {
      biased[e] = ForChoice(scores[e], input.layer.gate_bias[e]);
    }
    ChooseExperts(spec, biased, groups, chosen);
    WeighRow(spec, scores, chosen, std::span(output.weights).subspan(slot, spec.top_k));
  }
}

void WeighForcedExperts(const GateInput& input, GateOutput& output) {
  ComputeScores(input, output);
  const ModelSpec& spec = input.spec;
  const size_t slots = size_t{input.row_count} * spec.top_k;
  SY_CHECK(output.experts.size() == slots);
  output.weights.resize(slots);
  for (uint32_t row = 0; row < input.row_count; ++row) {
    const size_t slot = size_t{row} * spec.top_k;
    WeighRow(spec,
             std::span(output.scores).subspan(size_t{row} * spec.expert_count, spec.expert_count),
             std::span(output.experts).subspan(slot, spec.top_k),
             std::span(output.weights).subspan(slot, spec.top_k));
  }
}

}  // namespace switchyard
