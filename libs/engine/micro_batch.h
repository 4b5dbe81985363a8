#ifndef SWITCHYARD_LIBS_ENGINE_MICRO_BATCH_H_
#define SWITCHYARD_LIBS_ENGINE_MICRO_BATCH_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "libs/base/ids.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/kernels/kernels.h"
#include "libs/model/gate.h"
#include "libs/model/mla_attention.h"
#include "libs/scheduler/step_plan.h"

namespace switchyard {

// Which position of which request a row of a step is.
struct RowOrigin {
  RequestId request;
  uint32_t position = 0;
};

// MicroBatch is some rows of a step on their way through the layers, with the buffers they need.
// Rows are independent of each other, so how a step is split does not change any result.
//
// One owner: the step thread. Reused from step to step: buffers only grow.
struct MicroBatch {
  std::vector<RowOrigin> origins;
  std::vector<TokenId> tokens;
  std::vector<AttentionRow> rows;
  std::vector<uint32_t> logits_rows;  // Indices of rows that need logits, ascending.

  std::vector<float> x;            // Residual stream, [rows][hidden].
  std::vector<float> normed;       // Input of attention, experts or dense network, [rows][hidden].
  std::vector<float> branch;       // Output of those, before it joins the residual, [rows][hidden].
  std::vector<float> shared;       // Output of the shared expert, [rows][hidden].
  std::vector<float> expert_rows;  // [rows][top_k][hidden]
  FfnScratch scratch;
  ActivationBuffer prepared;
  GateOutput gate;
  std::optional<DispatchTicket> ticket;  // Rows that are at the shards now.

  uint32_t row_count() const { return static_cast<uint32_t>(rows.size()); }
};

// How a step is split. Two micro-batches let the experts of one run while the attention of the
// other does; they read more expert weights in total, so small steps stay whole.
struct SplitPolicy {
  uint32_t micro_batches = 1;  // 1 or 2.
  uint32_t rows_min = 2;       // Fewer rows are not split.
};

// Lays the rows of `plan` out in plan order; `batches` is reused, the answer spans the ones in use.
std::span<MicroBatch> SplitPlan(const StepPlan& plan, const SplitPolicy& policy,
                                std::vector<MicroBatch>& batches);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_MICRO_BATCH_H_
