#ifndef SWITCHYARD_LIBS_MODEL_FORWARD_H_
#define SWITCHYARD_LIBS_MODEL_FORWARD_H_

#include <cstdint>
#include <span>
#include <vector>

#include "libs/base/ids.h"
#include "libs/kernels/kernels.h"
#include "libs/model/checkpoint.h"
#include "libs/model/expert_weights.h"
#include "libs/model/model_spec.h"

namespace switchyard {

// The parts of a forward pass besides attention, gate and routed experts, as free functions over
// rows of f32: embedding, norms, dense and shared feed-forward networks, head. Each row's result
// depends on that row alone (DESIGN §6).
//
// Called by the step thread; the pool's threads are used inside a call. Pointers are not kept.
// Scratch vectors grow once to the largest step and are reused: no allocation in the steady state.

// out[row] = embedding of tokens[row], widened to f32. Every token is below vocab_size: callers
// check what a client or peer sent.
void EmbedRows(const RouterWeights& weights, std::span<const TokenId> tokens, float* out,
               uint32_t hidden_size);

struct NormArgs {
  std::span<const float> weight;  // [hidden]
  float epsilon = 1e-6F;
  const float* x = nullptr;  // [row_count][hidden]
  uint32_t row_count = 0;
  float* y = nullptr;  // [row_count][hidden]; may be x.
};

// RMS norm of each row.
void NormRows(const Kernels& kernels, const NormArgs& args);

struct FfnArgs {
  const ExpertWeights& weights;  // A dense layer's, or the shared expert's.
  const float* x = nullptr;      // [row_count][hidden]
  uint32_t row_count = 0;
  float* y = nullptr;  // [row_count][hidden], overwritten.
  FfnScratch* scratch = nullptr;
  ActivationBuffer* prepared = nullptr;
};

// y = down( silu(gate x) * (up x) ), one group of GroupedFfn.
void RunFfn(const Kernels& kernels, ComputePool& pool, const FfnArgs& args);

struct HeadArgs {
  const ModelSpec& spec;
  const RouterWeights& weights;
  const float* x = nullptr;  // [row_count][hidden]: the residual stream after the last layer.
  uint32_t row_count = 0;
  float* logits = nullptr;                // [row_count][vocab]
  std::vector<float>* scratch = nullptr;  // Grows to row_count * hidden.
  ActivationBuffer* prepared = nullptr;
};

// logits = head( final norm of x ). Pass only the rows that need a token.
void RunHead(const Kernels& kernels, ComputePool& pool, const HeadArgs& args);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_FORWARD_H_
