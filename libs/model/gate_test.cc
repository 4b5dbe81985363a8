#include "libs/model/gate.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/rng.h"

namespace switchyard {
namespace {

using testing::ElementsAre;

// A gate whose weights are the identity: the logit of expert e is x[e].
class GateFixture : public testing::Test {
 protected:
  void Configure(uint32_t experts, uint32_t groups, uint32_t top_k_groups, uint32_t top_k) {
    spec_.expert_count = experts;
    spec_.hidden_size = experts;
    spec_.group_count = groups;
    spec_.top_k_groups = top_k_groups;
    spec_.top_k = top_k;
    identity_.assign(size_t{experts} * experts, 0.0F);
    for (size_t i = 0; i < experts; ++i) {
      identity_[i * experts + i] = 1.0F;
    }
    layer_.gate = {
        .data = identity_.data(), .dtype = Dtype::kF32, .rows = experts, .columns = experts};
    layer_.gate_bias.assign(experts, 0.0F);
  }

  GateInput Input(const std::vector<float>& logits) const {
    return {.spec = spec_,
            .layer = layer_,
            .kernels = BestKernels(),
            .x = logits.data(),
            .row_count = static_cast<uint32_t>(logits.size() / spec_.expert_count)};
  }

  GateOutput Run(const std::vector<float>& logits) const {
    GateOutput output;
    RunGate(Input(logits), output);
    return output;
  }

  ModelSpec spec_;
  LayerWeights layer_;
  std::vector<float> identity_;
};

// Indices of values in descending order, the lower index of equals first.
std::vector<size_t> Descending(const std::vector<float>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  return order;
}

float Sigmoid(double x) { return static_cast<float>(1.0 / (1.0 + std::exp(-x))); }

TEST_F(GateFixture, TakesTheBestInDescendingOrderAndNormalises) {
  Configure(4, 1, 1, 2);
  spec_.routed_scaling_factor = 2.5F;
  const GateOutput output = Run({0.0F, 2.0F, -1.0F, 3.0F});
  EXPECT_THAT(output.experts, ElementsAre(3, 1));
  const float sum = Sigmoid(3) + Sigmoid(2);
  EXPECT_NEAR(output.weights[0], 2.5F * Sigmoid(3) / sum, 1e-6);
  EXPECT_NEAR(output.weights[1], 2.5F * Sigmoid(2) / sum, 1e-6);
}

TEST_F(GateFixture, WithoutNormalisationWeightsAreScaledScores) {
  Configure(4, 1, 1, 1);
  spec_.norm_top_k = false;
  spec_.routed_scaling_factor = 2.0F;
  EXPECT_NEAR(Run({0.0F, 2.0F, -1.0F, 1.0F}).weights[0], 2.0F * Sigmoid(2), 1e-6);
}

TEST_F(GateFixture, BiasChoosesButDoesNotWeigh) {
  Configure(4, 1, 1, 2);
  layer_.gate_bias = {0.9F, 0.0F, 0.0F, -0.9F};
  const GateOutput output = Run({0.0F, 1.0F, -1.0F, 3.0F});
  EXPECT_THAT(output.experts, ElementsAre(0, 1));
  EXPECT_NEAR(output.weights[0], Sigmoid(0) / (Sigmoid(0) + Sigmoid(1)), 1e-6);
}

TEST_F(GateFixture, TiesGoToTheLowerIndexAmongExpertsAndGroups) {
  Configure(8, 4, 2, 4);
  EXPECT_THAT(Run(std::vector<float>(8, 0.5F)).experts, ElementsAre(0, 1, 2, 3));
}

TEST_F(GateFixture, GroupsAreRankedByTheirTwoBest) {
  Configure(6, 2, 1, 1);
  // Group 0 has the single best expert, group 1 the best pair.
  EXPECT_THAT(Run({3.0F, -3.0F, -3.0F, 1.0F, 1.0F, -3.0F}).experts, ElementsAre(3));
}

TEST_F(GateFixture, UnselectedGroupsStayOutEvenWhenAllBiasedScoresAreNegative) {
  Configure(4, 2, 1, 2);
  layer_.gate_bias = {-2.0F, -2.0F, -3.0F, -3.0F};
  // A mask of 0.0 would let experts 2 and 3 in ahead of the chosen group's.
  EXPECT_THAT(Run({0.0F, 1.0F, 2.0F, 2.0F}).experts, ElementsAre(1, 0));
}

TEST_F(GateFixture, NanAndInfiniteLogitsStillGiveDistinctExperts) {
  Configure(8, 4, 2, 4);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  layer_.gate_bias[7] = -infinity;
  for (const std::vector<float>& logits :
       {std::vector<float>(8, nan), std::vector<float>(8, -infinity),
        std::vector<float>{nan, 1.0F, nan, nan, -infinity, infinity, nan, 2.0F}}) {
    std::vector<uint16_t> experts = Run(logits).experts;
    std::sort(experts.begin(), experts.end());
    EXPECT_EQ(std::unique(experts.begin(), experts.end()), experts.end());
    EXPECT_LT(experts.back(), 8);
  }
}

TEST_F(GateFixture, RowsDoNotDependOnTheirNeighboursOrThreads) {
  Configure(16, 4, 2, 5);
  constexpr size_t kRows = 75;  // Some tiles of rows, the last one not full.
  Rng rng(11);
  std::vector<float> rows(16 * kRows);
  for (float& value : rows) {
    value = rng.Unit() * 4 - 2;
  }
  for (float& bias : layer_.gate_bias) {
    bias = rng.Unit() - 0.5F;
  }
  const GateOutput together = Run(rows);
  for (size_t row = 0; row < kRows; ++row) {
    const GateOutput alone = Run({rows.begin() + static_cast<ptrdiff_t>(row * 16),
                                  rows.begin() + static_cast<ptrdiff_t>(row * 16 + 16)});
    for (size_t k = 0; k < 5; ++k) {
      EXPECT_EQ(alone.experts[k], together.experts[row * 5 + k]);
      EXPECT_EQ(alone.weights[k], together.weights[row * 5 + k]);
    }
  }
  ComputePool pool(2);
  GateInput input = Input(rows);
  input.pool = &pool;
  GateOutput pooled;
  RunGate(input, pooled);
  EXPECT_EQ(pooled.experts, together.experts);
  EXPECT_EQ(pooled.weights, together.weights);
}

TEST_F(GateFixture, ChoosesAsSortingWould) {
  Configure(48, 8, 3, 7);
  constexpr size_t kRows = 40;
  Rng rng(12);
  std::vector<float> rows(48 * kRows);
  for (float& value : rows) {
    value = static_cast<float>(rng.Below(9)) - 4.0F;  // Many ties.
  }
  for (float& bias : layer_.gate_bias) {
    bias = static_cast<float>(rng.Below(3)) - 1.0F;
  }
  const GateOutput output = Run(rows);
  for (size_t row = 0; row < kRows; ++row) {
    std::vector<float> biased(48);
    BestKernels().sigmoid(&rows[row * 48], biased.data(), 48);
    for (size_t e = 0; e < 48; ++e) {
      biased[e] += layer_.gate_bias[e];
    }
    std::vector<float> groups;
    for (size_t g = 0; g < 8; ++g) {
      std::vector<float> group(biased.begin() + static_cast<ptrdiff_t>(g * 6),
                               biased.begin() + static_cast<ptrdiff_t>(g * 6 + 6));
      std::sort(group.begin(), group.end(), std::greater<>());
      groups.push_back(group[0] + group[1]);
    }
    const std::vector<size_t> group_order = Descending(groups);
    for (size_t place = 3; place < 8; ++place) {
      std::fill_n(biased.begin() + static_cast<ptrdiff_t>(group_order[place] * 6), 6,
                  -std::numeric_limits<float>::infinity());
    }
    const std::vector<size_t> order = Descending(biased);
    for (size_t k = 0; k < 7; ++k) {
      EXPECT_EQ(output.experts[row * 7 + k], order[k]) << "row " << row << " slot " << k;
    }
  }
}

TEST_F(GateFixture, ForcedExpertsAreWeighedAsTheirScoresSay) {
  Configure(4, 2, 1, 2);
  GateOutput output;
  output.experts = {2, 0};
  const std::vector<float> logits = {0.0F, 2.0F, -1.0F, 3.0F};
  WeighForcedExperts(Input(logits), output);
  EXPECT_THAT(output.experts, ElementsAre(2, 0));
  EXPECT_NEAR(output.weights[0], Sigmoid(-1) / (Sigmoid(-1) + Sigmoid(0)), 1e-6);
}

TEST_F(GateFixture, NoRowsGiveNoChoices) {
  Configure(4, 1, 1, 2);
  EXPECT_TRUE(Run({}).experts.empty());
}

}  // namespace
}  // namespace switchyard
