#ifndef SWITCHYARD_LIBS_MODEL_GATE_H_
#define SWITCHYARD_LIBS_MODEL_GATE_H_

#include <cstdint>
#include <vector>

#include "libs/kernels/kernels.h"
#include "libs/model/checkpoint.h"
#include "libs/model/model_spec.h"

namespace switchyard {

// Chosen experts of some rows: experts distinct within a row, in descending order of the biased
// score (ties: lower index first); weights are unbiased scores, normalised and scaled.
struct GateOutput {
  std::vector<uint16_t> experts;  // [rows][top_k]
  std::vector<float> weights;     // [rows][top_k]
  // Working memory, kept to avoid allocation per step.
  std::vector<float> scores;           // [rows][experts]
  std::vector<float> biased;           // [rows][experts]
  std::vector<uint64_t> group_ranks;   // [rows][top_k_groups]
  std::vector<uint64_t> expert_ranks;  // [rows][top_k]
};

// All references outlive the call.
struct GateInput {
  const ModelSpec& spec;
  const LayerWeights& layer;
  const Kernels& kernels;
  const float* x = nullptr;  // [row_count][hidden]
  uint32_t row_count = 0;
  ComputePool* pool = nullptr;  // Shares the rows' work; null: the calling thread only.
};

// RunGate is the noaux_tc gate of DeepSeek-V3 (arXiv 2412.19437 §2.1.2): sigmoid scores in fp32,
// the correction bias for choosing only, the best groups by the sum of their two best biased
// scores, then top-k among the experts of those groups only. Unselected groups are out of the race
// whatever the sign of the biases: DeepSeek's inference code and transformers 5 mask them with
// minus infinity. (Older transformers masked with 0.0, which lets them in when biased scores are
// negative.) A NaN score loses to every number, so the choice is always top_k distinct experts. Any
// thread; `output` is resized.
void RunGate(const GateInput& input, GateOutput& output);

// The same for expert choices given in output.experts: fills output.weights only. For conformance
// tests that force the reference's choice.
void WeighForcedExperts(const GateInput& input, GateOutput& output);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_GATE_H_
