#include "libs/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/container/flat_hash_map.h"

#include "libs/base/check.h"
#include "libs/base/rng.h"
#include "libs/kernels/kernels.h"
#include "libs/model/internal/log.h"

namespace switchyard {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

// A logit that compares: NaN is impossible, plus infinity the largest finite number.
float Clean(float logit) {
  return std::isnan(logit) ? kImpossible : std::min(logit, std::numeric_limits<float>::max());
}

// Descending by value, ties by lower id.
struct Candidate {
  TokenId token = 0;
  float value = 0.0F;

  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value > b.value : a.token < b.token;
  }
};

void ApplyRepetition(float penalty, const SampleHistory& history, std::vector<float>& logits) {
  if (penalty == 1.0F) {
    return;
  }
  std::vector<TokenId> seen(history.prompt.begin(), history.prompt.end());
  seen.insert(seen.end(), history.generated.begin(), history.generated.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const TokenId token : seen) {
    if (token < logits.size()) {
      float& logit = logits[token];
      logit = Clean(logit > 0.0F ? logit / penalty : logit * penalty);
    }
  }
}

void ApplyPenalties(const SamplingParams& params, const SampleHistory& history,
                    std::vector<float>& logits) {
  ApplyRepetition(params.repetition_penalty, history, logits);
  if (params.presence_penalty == 0.0F && params.frequency_penalty == 0.0F) {
    return;
  }
  absl::flat_hash_map<TokenId, uint32_t> counts;
  for (const TokenId token : history.generated) {
    ++counts[token];
  }
  for (const auto& [token, count] : counts) {
    if (token < logits.size()) {
      logits[token] -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
    }
  }
}

std::vector<float> Adjust(std::span<const float> raw, const SamplingParams& params,
                          const SampleHistory& history) {
  std::vector<float> logits(raw.size());
  std::transform(raw.begin(), raw.end(), logits.begin(), Clean);
  for (const auto& [token, bias] : params.logit_bias) {
    if (token < logits.size()) {
      logits[token] = Clean(logits[token] + bias);
    }
  }
  ApplyPenalties(params, history, logits);
  for (const TokenId token : params.banned) {
    if (token < logits.size()) {
      logits[token] = kImpossible;
    }
  }
  return logits;
}

TokenId ArgMax(std::span<const float> logits) {
  // max_element returns the first of equals, the lowest id.
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Tokens that are possible, in id order; the best top_k of them, in descending order, when top_k is
// on.
std::vector<Candidate> Candidates(std::span<const float> logits, uint32_t top_k) {
  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > kImpossible) {
      candidates.push_back({.token = static_cast<TokenId>(i), .value = logits[i]});
    }
  }
  if (top_k > 0 && top_k < candidates.size()) {
    std::partial_sort(candidates.begin(), candidates.begin() + top_k, candidates.end());
    candidates.resize(top_k);
  }
  return candidates;
}

// Turns values into exp((value - max) / temperature); the largest becomes 1.
void ToRelativeProbabilities(float temperature, std::vector<Candidate>& candidates) {
  float max = kImpossible;
  for (const Candidate& each : candidates) {
    max = std::max(max, each.value);
  }
  std::vector<float> values(candidates.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = (candidates[i].value - max) / temperature;
  }
  BestKernels().exp_sum(0.0F, values.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    candidates[i].value = values[i];
  }
}

double Total(std::span<const Candidate> candidates) {
  double total = 0.0;
  for (const Candidate& each : candidates) {
    total += static_cast<double>(each.value);
  }
  return total;
}

// Keeps the fewest most probable candidates whose share reaches top_p; at least one.
void ApplyTopP(float top_p, std::vector<Candidate>& candidates) {
  if (!(top_p < 1.0F)) {
    return;
  }
  const double total = Total(candidates);
  const double wanted = static_cast<double>(top_p) * total;
  // All that are less than this have less than 1 - top_p together (with a margin for rounding), so
  // the rest reaches top_p: only the rest, mostly a few, is sorted.
  const double least = 0.999 * (total - wanted) / static_cast<double>(candidates.size());
  std::erase_if(candidates,
                [least](const Candidate& each) { return static_cast<double>(each.value) < least; });
  std::sort(candidates.begin(), candidates.end());
  double covered = 0.0;
  size_t kept = 0;
  do {
    covered += static_cast<double>(candidates[kept].value);
    ++kept;
  } while (covered < wanted && kept < candidates.size());
  candidates.resize(kept);
}

// Keeps candidates at least min_p times as probable as the best, which has relative probability 1.
void ApplyMinP(float min_p, std::vector<Candidate>& candidates) {
  if (min_p > 0.0F) {
    const float least = std::min(min_p, 1.0F);
    std::erase_if(candidates, [least](const Candidate& each) { return each.value < least; });
  }
}

TokenId Draw(std::span<const Candidate> candidates, uint64_t bits) {
  // 53 random bits: rare tokens keep their share.
  const double point =
      static_cast<double>(bits >> 11) * (1.0 / 9007199254740992.0) * Total(candidates);
  double covered = 0.0;
  TokenId chosen = candidates.front().token;
  for (const Candidate& each : candidates) {
    if (each.value > 0.0F) {
      chosen = each.token;
      covered += static_cast<double>(each.value);
      if (covered > point) {
        break;
      }
    }
  }
  return chosen;
}

TokenId Choose(std::span<const float> logits, const SamplingParams& params, uint64_t position) {
  if (params.temperature <= 0.0F) {
    return ArgMax(logits);
  }
  std::vector<Candidate> candidates = Candidates(logits, params.top_k);
  if (candidates.empty()) {
    return 0;
  }
  ToRelativeProbabilities(params.temperature, candidates);
  ApplyTopP(params.top_p, candidates);
  ApplyMinP(params.min_p, candidates);
  return Draw(candidates, CounterRandom(params.seed, params.choice_index, position));
}

// For when no token is possible.
TokenId LowestNotBanned(std::span<const TokenId> banned, size_t vocab_size) {
  for (TokenId token = 0; token < vocab_size; ++token) {
    if (std::find(banned.begin(), banned.end(), token) == banned.end()) {
      return token;
    }
  }
  return 0;
}

bool LeavesLogitsAlone(const SamplingParams& params) {
  return params.logit_bias.empty() && params.banned.empty() && params.repetition_penalty == 1.0F &&
         params.presence_penalty == 0.0F && params.frequency_penalty == 0.0F;
}

// Greedy over untouched logits, without a copy.
TokenId GreedyToken(std::span<const float> raw) {
  TokenId best = 0;
  float best_logit = kImpossible;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (const float logit = Clean(raw[i]); logit > best_logit) {
      best = static_cast<TokenId>(i);
      best_logit = logit;
    }
  }
  return best;
}

}  // namespace

SampledToken Sample(std::span<const float> logits, const SamplingParams& params,
                    const SampleHistory& history, uint64_t position) {
  SY_CHECK(!logits.empty());
  TokenId token = 0;
  if (params.temperature <= 0.0F && LeavesLogitsAlone(params)) {
    token = GreedyToken(logits);
  } else {
    const std::vector<float> adjusted = Adjust(logits, params, history);
    token = Choose(adjusted, params, position);
    if (adjusted[token] == kImpossible) {
      token = LowestNotBanned(params.banned, logits.size());
    }
  }
  if (!params.wants_logprobs) {
    return {.token = token, .logprob = 0.0F, .top = {}};
  }
  return Score(logits, token, params.logprobs);
}

SampledToken Score(std::span<const float> logits, TokenId token, uint32_t top_count) {
  SY_CHECK(token < logits.size());
  float max = kImpossible;
  for (const float logit : logits) {
    max = std::max(max, Clean(logit));
  }
  double sum = 0.0;
  for (const float logit : logits) {
    if (const float shifted = Clean(logit) - max; shifted > -87.0F) {
      sum += static_cast<double>(Exp(shifted));
    }
  }
  // sum is at least 1, or 0 when no token is possible.
  const double log_sum = sum > 0.0 ? internal::Log(sum) : 0.0;
  const auto logprob_of = [&](float logit) {
    const double logprob = static_cast<double>(Clean(logit)) - static_cast<double>(max) - log_sum;
    return logprob > static_cast<double>(kLogprobMin) ? static_cast<float>(logprob) : kLogprobMin;
  };
  SampledToken result{.token = token, .logprob = logprob_of(logits[token]), .top = {}};
  if (top_count == 0) {
    return result;
  }
  std::vector<Candidate> order(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    order[i] = {.token = static_cast<TokenId>(i), .value = Clean(logits[i])};
  }
  const size_t count = std::min<size_t>(top_count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end());
  for (size_t i = 0; i < count; ++i) {
    result.top.push_back({.token = order[i].token, .logprob = logprob_of(order[i].value)});
  }
  return result;
}

}  // namespace switchyard
