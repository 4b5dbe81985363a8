#include "libs/model/gate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "libs/base/check.h"

namespace switchyard {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

// Rows of one tile, which share a pass over the weights. No more than these: threads share the
// columns of the product instead.
constexpr uint32_t kRowsPerTile = 32;

// What choosing and weighing take for one score of a row.
constexpr uint64_t kChoiceNsPerScore = 4;

struct RowRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

GemmArgs ScoresOf(const GateInput& input, GateOutput& output, RowRange rows) {
  const size_t experts = input.spec.expert_count;
  return {.x = input.x + size_t{rows.begin} * input.spec.hidden_size,
          .x_stride = input.spec.hidden_size,
          .row_count = rows.end - rows.begin,
          .w = input.layer.gate,
          .bias = nullptr,
          .y = output.scores.data() + rows.begin * experts,
          .y_stride = experts,
          .column_begin = 0,
          .column_end = input.spec.expert_count};
}

// Fills output.scores [rows][experts] with sigmoid scores, and calls finish(rows) for ranges of
// rows whose scores are there, on any of the pool's threads.
template <typename Finish>
void ForScoredRows(const GateInput& input, GateOutput& output, const Finish& finish) {
  const size_t experts = input.spec.expert_count;
  SY_CHECK(input.layer.gate.rows == experts && input.layer.gate_bias.size() == experts);
  output.scores.resize(input.row_count * experts);
  if (input.row_count == 0) {
    return;
  }
  const auto finish_rows = [&](RowRange rows) {
    float* const scores = output.scores.data() + rows.begin * experts;
    input.kernels.sigmoid(scores, scores, (rows.end - rows.begin) * experts);
    finish(rows);
  };
  const RowRange all{0, input.row_count};
  if (input.pool == nullptr) {
    input.kernels.gemm(ScoresOf(input, output, all));
    finish_rows(all);
    return;
  }
  if (input.row_count <= kRowsPerTile) {
    ParallelGemm(input.kernels, *input.pool, ScoresOf(input, output, all));
    finish_rows(all);
    return;
  }
  const uint64_t score_count = uint64_t{input.row_count} * experts;
  const uint64_t work_ns =
      ProductNs(ActivationForm::kF32, 0, score_count * input.spec.hidden_size) +
      score_count * kChoiceNsPerScore;
  const uint32_t tile_count = (input.row_count + kRowsPerTile - 1) / kRowsPerTile;
  RunTiles(*input.pool, tile_count, work_ns, [&](uint32_t tile) {
    const uint32_t begin = tile * kRowsPerTile;
    const RowRange rows{begin, std::min(begin + kRowsPerTile, input.row_count)};
    input.kernels.gemm(ScoresOf(input, output, rows));
    finish_rows(rows);
  });
}

// Sum of the two largest of `values`, which has at least two.
float BestTwoSum(std::span<const float> values) {
  float first = kLowest;
  float second = kLowest;
  for (const float value : values) {
    second = std::max(second, std::min(first, value));
    first = std::max(first, value);
  }
  return first + second;
}

// A number that is larger for a better candidate: one of a larger score (finite), or of the same
// score and a lower index.
uint64_t RankOf(float score, uint32_t index) {
  constexpr uint32_t kSign = 0x80000000;
  const auto bits = std::bit_cast<uint32_t>(score + 0.0F);  // Both zeros are one.
  const uint32_t ordered = (bits & kSign) != 0 ? ~bits : bits | kSign;
  return uint64_t{ordered} << 32 | (std::numeric_limits<uint32_t>::max() - index);
}

uint32_t IndexOf(uint64_t rank) {
  return std::numeric_limits<uint32_t>::max() - static_cast<uint32_t>(rank);
}

// Puts `rank` into `best`, which is in descending order, and drops the least. Without branches,
// which random scores would have mispredicted.
void Offer(uint64_t rank, std::span<uint64_t> best) {
  for (uint64_t& place : best) {
    const uint64_t larger = std::max(place, rank);
    rank = std::min(place, rank);
    place = larger;
  }
}

// One row's choice, in memory of its own.
struct RowChoice {
  std::span<const float> biased;     // [experts]
  std::span<uint64_t> group_ranks;   // [top_k_groups]
  std::span<uint64_t> expert_ranks;  // [top_k]
  std::span<uint16_t> experts;       // [top_k], as chosen.
};

void ChooseExperts(const ModelSpec& spec, const RowChoice& choice) {
  const uint32_t group_size = spec.expert_count / spec.group_count;
  const bool all_groups = spec.top_k_groups == spec.group_count;
  std::ranges::fill(choice.group_ranks, 0);
  for (uint32_t g = 0; g < spec.group_count && !all_groups; ++g) {
    Offer(RankOf(BestTwoSum(choice.biased.subspan(size_t{g} * group_size, group_size)), g),
          choice.group_ranks);
  }
  std::ranges::fill(choice.expert_ranks, 0);
  for (uint32_t i = 0; i < spec.top_k_groups; ++i) {
    const uint32_t group = all_groups ? i : IndexOf(choice.group_ranks[i]);
    for (uint32_t e = group * group_size; e < (group + 1) * group_size; ++e) {
      Offer(RankOf(choice.biased[e], e), choice.expert_ranks);
    }
  }
  for (size_t k = 0; k < choice.experts.size(); ++k) {
    const uint32_t expert = IndexOf(choice.expert_ranks[k]);
    SY_CHECK(expert < spec.expert_count);
    choice.experts[k] = static_cast<uint16_t>(expert);
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
  const ModelSpec& spec = input.spec;
  const size_t experts = spec.expert_count;
  const size_t row_count = input.row_count;
  output.experts.resize(row_count * spec.top_k);
  output.weights.resize(row_count * spec.top_k);
  output.biased.resize(row_count * experts);
  output.group_ranks.resize(row_count * spec.top_k_groups);
  output.expert_ranks.resize(row_count * spec.top_k);
  const auto part_of = []<typename T>(std::vector<T>& values, size_t row, size_t count) {
    return std::span<T>(values).subspan(row * count, count);
  };
  ForScoredRows(input, output, [&](RowRange rows) {
    for (uint32_t row = rows.begin; row < rows.end; ++row) {
      const std::span<const float> scores = part_of(output.scores, row, experts);
      const std::span<float> biased = part_of(output.biased, row, experts);
      for (size_t e = 0; e < experts; ++e) {
        biased[e] = ForChoice(scores[e], input.layer.gate_bias[e]);
      }
      const std::span<uint16_t> chosen = part_of(output.experts, row, spec.top_k);
      ChooseExperts(spec, {.biased = biased,
                           .group_ranks = part_of(output.group_ranks, row, spec.top_k_groups),
                           .expert_ranks = part_of(output.expert_ranks, row, spec.top_k),
                           .experts = chosen});
      WeighRow(spec, scores, chosen, part_of(output.weights, row, spec.top_k));
    }
  });
}

void WeighForcedExperts(const GateInput& input, GateOutput& output) {
  const ModelSpec& spec = input.spec;
  const size_t slots = size_t{input.row_count} * spec.top_k;
  SY_CHECK(output.experts.size() == slots);
  output.weights.resize(slots);
  ForScoredRows(input, output, [&](RowRange rows) {
    for (uint32_t row = rows.begin; row < rows.end; ++row) {
      const size_t slot = size_t{row} * spec.top_k;
      WeighRow(spec,
               std::span<const float>(output.scores)
                   .subspan(size_t{row} * spec.expert_count, spec.expert_count),
               std::span<const uint16_t>(output.experts).subspan(slot, spec.top_k),
               std::span(output.weights).subspan(slot, spec.top_k));
    }
  });
}

}  // namespace switchyard
