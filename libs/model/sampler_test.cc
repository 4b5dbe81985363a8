#include "libs/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kernels/kernels.h"
#include "libs/model/internal/log.h"

namespace switchyard {
namespace {

using testing::Each;
using testing::Lt;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TokenId Draw(const std::vector<float>& logits, const SamplingParams& params,
             uint64_t position = 0) {
  return Sample(logits, params, {}, position).token;
}

// How often each token is drawn at positions [0, count).
std::vector<double> Frequencies(const std::vector<float>& logits, const SamplingParams& params,
                                uint64_t count) {
  std::vector<double> frequencies(logits.size(), 0.0);
  for (uint64_t position = 0; position < count; ++position) {
    frequencies[Draw(logits, params, position)] += 1.0 / static_cast<double>(count);
  }
  return frequencies;
}

std::vector<double> Softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> result;
  double sum = 0;
  for (const float logit : logits) {
    result.push_back(std::exp(static_cast<double>(logit) / temperature));
    sum += result.back();
  }
  for (double& each : result) {
    each /= sum;
  }
  return result;
}

// Pearson's statistic over `count` draws; about the number of tokens for the right distribution.
double ChiSquare(const std::vector<double>& observed, const std::vector<double>& expected,
                 double count) {
  double sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = observed[i] - expected[i];
    sum += difference * difference / expected[i] * count;
  }
  return sum;
}

TEST(Sample, GreedyTakesTheLargestAndTheLowerOfEquals) {
  const SamplingParams greedy{.temperature = 0.0F};
  EXPECT_EQ(Draw({1, 3, 2}, greedy), 1U);
  EXPECT_EQ(Draw({1, 3, 3}, greedy), 1U);
  EXPECT_EQ(Draw({0.0F, -0.0F}, greedy), 0U);
  EXPECT_EQ(Draw({1, kNan, 2}, greedy), 2U);
  EXPECT_EQ(Draw({1, kInfinity, 2}, greedy), 1U);
  EXPECT_EQ(Draw({-kInfinity, kNan}, greedy), 0U);
}

TEST(Sample, DrawsTheSoftmaxDistribution) {
  const std::vector<float> logits = {0.0F, 1.0F, -1.0F, 2.0F, 0.5F, -2.0F};
  for (const float temperature : {0.5F, 1.0F, 2.0F}) {
    const SamplingParams params{.temperature = temperature, .seed = 42};
    // The 0.1 % point of chi-square with 5 degrees of freedom is 20.5.
    EXPECT_LT(ChiSquare(Frequencies(logits, params, 20000),
                        Softmax(logits, static_cast<double>(temperature)), 20000),
              20.5)
        << temperature;
  }
}

TEST(Sample, IsAFunctionOfSeedChoiceAndPosition) {
  const std::vector<float> logits(64, 0.0F);
  SamplingParams params{.seed = 7};
  std::vector<TokenId> first;
  std::vector<TokenId> backwards(32);
  for (uint64_t position = 0; position < 32; ++position) {
    first.push_back(Draw(logits, params, position));
  }
  for (uint64_t position = 32; position-- > 0;) {
    backwards[position] = Draw(logits, params, position);
  }
  EXPECT_EQ(first, backwards);
  params.choice_index = 1;
  std::vector<TokenId> other_choice;
  for (uint64_t position = 0; position < 32; ++position) {
    other_choice.push_back(Draw(logits, params, position));
  }
  EXPECT_NE(first, other_choice);
}

TEST(Sample, TopKKeepsTheBestWithTiesToLowerIds) {
  const SamplingParams params{.top_k = 2, .seed = 1};
  const std::vector<double> seen = Frequencies({1.0F, 1.0F, 1.0F, 0.0F}, params, 500);
  EXPECT_GT(seen[0], 0.3);
  EXPECT_GT(seen[1], 0.3);
  EXPECT_EQ(seen[2] + seen[3], 0.0);
  EXPECT_EQ(Draw({1, 5, 2}, {.top_k = 1, .seed = 3}), 1U);
  EXPECT_THAT(Frequencies({1, 1}, {.top_k = 9, .seed = 3}, 100), Each(Lt(0.8)));
}

TEST(Sample, TopPKeepsTheFewestTokensThatReachIt) {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const float log2 = 0.69314718F;
  const std::vector<float> logits = {2 * log2, 3 * log2, log2, log2};
  const auto kept = [&](float top_p) {
    std::vector<bool> seen;
    for (const double frequency : Frequencies(logits, {.top_p = top_p, .seed = 5}, 600)) {
      seen.push_back(frequency > 0);
    }
    return seen;
  };
  EXPECT_EQ(kept(0.0F), (std::vector<bool>{false, true, false, false}));
  EXPECT_EQ(kept(0.4F), (std::vector<bool>{false, true, false, false}));
  EXPECT_EQ(kept(0.6F), (std::vector<bool>{true, true, false, false}));
  EXPECT_EQ(kept(0.8F), (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(kept(1.0F), (std::vector<bool>{true, true, true, true}));
}

// The definition of top-p, token by token: sort all, keep the prefix, draw from it.
TokenId DrawTopPSlowly(const std::vector<float>& logits, const SamplingParams& params,
                       uint64_t position) {
  const float max = *std::max_element(logits.begin(), logits.end());
  std::vector<std::pair<float, TokenId>> order;
  double total = 0.0;
  for (TokenId token = 0; token < logits.size(); ++token) {
    const float weight = Exp((logits[token] - max) / params.temperature);
    order.emplace_back(-weight, token);
    total += static_cast<double>(weight);
  }
  std::sort(order.begin(), order.end());
  double kept = 0.0;
  size_t count = 0;
  while (count == 0 || (kept < static_cast<double>(params.top_p) * total && count < order.size())) {
    kept += static_cast<double>(-order[count++].first);
  }
  const uint64_t bits = CounterRandom(params.seed, params.choice_index, position);
  const double point = static_cast<double>(bits >> 11) * 0x1p-53 * kept;
  double covered = 0.0;
  size_t chosen = 0;
  while (chosen < count && (covered += static_cast<double>(-order[chosen].first)) <= point) {
    ++chosen;
  }
  return order[std::min(chosen, count - 1)].second;
}

TEST(Sample, TopPAgreesWithSortingEverything) {
  Rng rng(11);
  for (uint64_t position = 0; position < 2000; ++position) {
    std::vector<float> logits(1 + rng.Below(300));
    const float spread = position % 3 == 0 ? 0.0F : 12.0F * rng.Unit();
    for (float& logit : logits) {
      logit = spread * rng.Unit();
    }
    const SamplingParams params{
        .temperature = 0.1F + rng.Unit(), .top_p = rng.Unit(), .seed = position};
    ASSERT_EQ(Sample(logits, params, {}, position).token, DrawTopPSlowly(logits, params, position))
        << "seed 11, draw " << position;
  }
}

TEST(Sample, MinPDropsTokensFarBelowTheBest) {
  const std::vector<float> logits = {0.0F, -1.0F, -3.0F};  // Relative 1, 0.37, 0.05.
  const auto seen = Frequencies(logits, {.min_p = 0.1F, .seed = 5}, 600);
  EXPECT_GT(seen[1], 0.0);
  EXPECT_EQ(seen[2], 0.0);
  EXPECT_DOUBLE_EQ(Frequencies(logits, {.min_p = 1.0F, .seed = 5}, 100)[0], 1.0);
}

TEST(Sample, ExtremeLogitsAndTemperaturesNeverFail) {
  for (const float temperature : {1e-30F, 1e-6F, 1.0F, 1e30F}) {
    const SamplingParams params{
        .temperature = temperature, .top_p = 0.9F, .min_p = 0.01F, .seed = 9};
    EXPECT_EQ(Draw({-3e38F, 3e38F, -kInfinity, kNan}, params) == 1U || temperature > 1.0F, true);
    EXPECT_LT(Draw({kNan, kNan}, params), 2U);
    EXPECT_LT(Draw({kInfinity, kInfinity, 0.0F}, params), 2U + (temperature > 1.0F ? 1U : 0U));
  }
}

TEST(Sample, PenaltiesUseTheHistoryTheyAreDefinedOn) {
  const std::vector<TokenId> prompt = {0, 0};
  const std::vector<TokenId> generated = {1, 1, 1, 2};
  const SampleHistory history{.prompt = prompt, .generated = generated};
  const auto greedy = [&](const std::vector<float>& logits, SamplingParams params) {
    params.temperature = 0.0F;
    return Sample(logits, params, history, 0).token;
  };
  // Presence: once per generated token, prompt untouched.
  EXPECT_EQ(greedy({0.0F, 0.9F, 0.8F, 0.1F}, {.presence_penalty = 1.0F}), 3U);
  EXPECT_EQ(greedy({0.2F, 0.9F, 0.8F, 0.1F}, {.presence_penalty = 1.0F}), 0U);
  // Frequency: three times for token 1, once for token 2.
  EXPECT_EQ(greedy({0.0F, 1.4F, 1.0F, 0.0F}, {.frequency_penalty = 0.5F}), 2U);
  // Repetition: divides positive and multiplies negative logits of prompt and generated tokens,
  // once.
  EXPECT_EQ(greedy({3.0F, 3.0F, 3.0F, 1.6F}, {.repetition_penalty = 2.0F}), 3U);
  EXPECT_EQ(greedy({-1.0F, -1.0F, -1.0F, -1.5F}, {.repetition_penalty = 2.0F}), 3U);
  EXPECT_EQ(greedy({3.0F, 2.0F, 2.0F, 1.0F}, {.repetition_penalty = 2.0F}), 0U);
}

TEST(Sample, BiasAndBansShiftTheChoice) {
  SamplingParams params{.temperature = 0.0F, .logit_bias = {{2, 5.0F}, {900, 1.0F}}};
  EXPECT_EQ(Draw({1, 3, 2}, params), 2U);
  params.banned = {2, 700};
  EXPECT_EQ(Draw({1, 3, 2}, params), 1U);
  params.banned = {0, 1};
  params.logit_bias = {{1, 100.0F}};
  EXPECT_EQ(Draw({1, 3, 2}, params), 2U);
  params.temperature = 1.0F;
  EXPECT_DOUBLE_EQ(Frequencies({1, 3, 2}, params, 50)[2], 1.0);
}

TEST(Sample, WithNothingPossibleTheLowestIdThatIsNotBannedWins) {
  for (const float temperature : {0.0F, 1.0F}) {
    EXPECT_EQ(Draw({1, kNan, kNan}, {.temperature = temperature, .banned = {0}}), 1U);
    EXPECT_EQ(Draw({1, 2}, {.temperature = temperature, .banned = {0, 1}}), 0U);
  }
}

TEST(Sample, ReportsLogprobsOfTheRawLogits) {
  SamplingParams params{
      .temperature = 0.0F, .logprobs = 2, .wants_logprobs = true, .logit_bias = {{0, 100.0F}}};
  const std::vector<float> logits = {0.0F, 1.0F, 2.0F, 2.0F};
  const SampledToken sampled = Sample(logits, params, {}, 0);
  EXPECT_EQ(sampled.token, 0U);
  const double log_sum = std::log(1 + std::exp(1.0) + 2 * std::exp(2.0));
  EXPECT_NEAR(sampled.logprob, -log_sum, 1e-6);
  ASSERT_EQ(sampled.top.size(), 2U);
  EXPECT_EQ(sampled.top[0].token, 2U);
  EXPECT_EQ(sampled.top[1].token, 3U);
  EXPECT_NEAR(sampled.top[1].logprob, 2 - log_sum, 1e-6);
  params.wants_logprobs = false;
  EXPECT_TRUE(Sample(logits, params, {}, 0).top.empty());
}

TEST(Score, AgreesWithSampleAndIsAlwaysFinite) {
  const std::vector<float> logits = {0.0F, 1.0F, -kInfinity, kNan};
  const SampledToken scored = Score(logits, 2, 10);
  EXPECT_EQ(scored.logprob, kLogprobMin);
  ASSERT_EQ(scored.top.size(), 4U);
  EXPECT_EQ(scored.top[3].logprob, kLogprobMin);
  const SampledToken sampled =
      Sample(logits, {.temperature = 0.0F, .logprobs = 1, .wants_logprobs = true}, {}, 0);
  EXPECT_EQ(sampled.logprob, Score(logits, 1, 0).logprob);
  EXPECT_EQ(Score(std::vector<float>{kNan, kNan}, 0, 1).logprob, kLogprobMin);
}

TEST(Log, IsWithinTwoUlpOfTheLibrary) {
  double worst = 0;
  for (double x = 1e-30; x < 1e30; x *= 1.37) {
    const double expected = std::log(x);
    worst = std::max(worst, std::abs(internal::Log(x) - expected) / std::abs(expected));
  }
  EXPECT_LT(worst, 5e-16);
  EXPECT_EQ(internal::Log(1.0), 0.0);
}

}  // namespace
}  // namespace switchyard
