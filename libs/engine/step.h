#ifndef SWITCHYARD_LIBS_ENGINE_STEP_H_
#define SWITCHYARD_LIBS_ENGINE_STEP_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/engine/engine_metrics.h"
#include "libs/engine/micro_batch.h"
#include "libs/kernels/kernels.h"
#include "libs/kvcache/kv_storage.h"
#include "libs/model/checkpoint.h"
#include "libs/model/mla_attention.h"
#include "libs/model/model_spec.h"

namespace switchyard {

// Overrides the gate's choice for conformance tests: writes the experts of one row (top_k of them).
using ForcedExperts =
    std::function<void(LayerId layer, const RowOrigin& row, std::span<uint16_t> experts)>;

// Sees the logits of one row; valid during the call.
using LogitsConsumer = std::function<void(const RowOrigin& row, std::span<const float> logits)>;

// What a step computes with. All of it belongs to the step thread and outlives the step.
struct StepContext {
  const ModelSpec& spec;
  const RouterWeights& weights;
  const Kernels& kernels;
  ComputePool& pool;
  MlaAttention& attention;
  KvStorage& cache;
  Dispatcher& dispatcher;
  const Clock& clock;
  StageTimes& times;
  const ForcedExperts& forced_experts;  // Empty: the gate chooses.
};

// RunStep takes all rows through all layers, ending with the residual stream in `x` of each batch.
// The status is the dispatcher's when experts did not answer; the cache then holds nothing that a
// repeat of the same positions would not write again, and no ticket is left open.
absl::Status RunStep(const StepContext& step, std::span<MicroBatch> batches);

// Reused buffers of RunHeads.
struct HeadScratch {
  std::vector<float> x;
  std::vector<float> logits;
  std::vector<float> norm;
  ActivationBuffer prepared;
};

// Computes the logits of the rows that need them, a bounded number at a time, and hands each to
// `consume`, in row order.
void RunHeads(const StepContext& step, std::span<const MicroBatch> batches, HeadScratch& scratch,
              const LogitsConsumer& consume);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_STEP_H_
