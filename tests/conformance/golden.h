#ifndef SWITCHYARD_TESTS_CONFORMANCE_GOLDEN_H_
#define SWITCHYARD_TESTS_CONFORMANCE_GOLDEN_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"

namespace switchyard {

// Golden is one tiny checkpoint with what the reference implementation computes for one sequence,
// written by make_goldens.py. A value; any thread. Paths are relative to the repository's root,
// where tests run.
struct Golden {
  std::string name;
  std::string dir;  // Opens as a Checkpoint.
  std::vector<TokenId> prompt;
  std::vector<TokenId> decoded;  // The reference's greedy continuation of the prompt.
  uint32_t vocab_size = 0;
  std::vector<float> logits;      // [prompt + decoded][vocab], F32 run.
  std::vector<uint16_t> experts;  // [MoE layers][prompt + decoded][top_k], in no particular order.
  double sigma = 0.0;             // Mean standard deviation of a position's logits.
  double bf16_kl_free = 0.0;      // Mean KL of the reference's own BF16 run from its F32 run,
  double bf16_kl_forced = 0.0;    // and with the F32 run's expert choices forced.

  // Prompt and continuation.
  std::vector<TokenId> tokens() const;
};

// All that are in the repository, of either kind: F32 checkpoints, and FP8 ones ("fp8-...").
std::vector<std::string> GoldenNames();
std::vector<std::string> Fp8GoldenNames();

absl::StatusOr<Golden> LoadGolden(const std::string& name);

struct LogitDifference {
  double worst = 0.0;         // Largest absolute difference of two logits.
  uint32_t top1_changes = 0;  // Positions whose largest logit differs although the reference's
                              // margin between its two largest exceeds `margin_min`.
};

// `other` holds logits of the positions [first_position, first_position + other.size() / vocab).
LogitDifference CompareLogits(const Golden& golden, std::span<const float> other,
                              uint32_t first_position, double margin_min);

// Mean over the same positions of KL(golden || other) of the softmax distributions, in nats.
double MeanKl(const Golden& golden, std::span<const float> other, uint32_t first_position);

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_CONFORMANCE_GOLDEN_H_
