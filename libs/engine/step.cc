#include "libs/engine/step.h"

#include <algorithm>
#include <cstddef>

#include "libs/base/status.h"
#include "libs/model/forward.h"
#include "libs/model/gate.h"

namespace switchyard {
namespace {

// Rows of logits held at once: bounds memory when whole prompts are scored.
constexpr size_t kHeadRowsMax = 64;

void Resize(std::vector<float>& values, size_t count) {
  if (values.size() < count) {
    values.resize(count);
  }
}

void Embed(const StepContext& step, MicroBatch& batch) {
  const size_t value_count = size_t{batch.row_count()} * step.spec.hidden_size;
  Resize(batch.x, value_count);
  Resize(batch.normed, value_count);
  Resize(batch.branch, value_count);
  Resize(batch.shared, value_count);
  Resize(batch.expert_rows, value_count * step.spec.top_k);
  EmbedRows(step.weights, batch.tokens, batch.x.data(), step.spec.hidden_size);
}

// Calls rows(first value, row count) for tiles of rows that share `passes` passes over their
// values.
template <typename Rows>
void ForRowTiles(const StepContext& step, const MicroBatch& batch, uint32_t passes,
                 const Rows& rows) {
  const uint64_t value_count = uint64_t{batch.row_count()} * step.spec.hidden_size;
  RunRowTiles(step.pool, batch.row_count(), PassNs(passes * value_count),
              [&](uint32_t begin, uint32_t end) {
                rows(size_t{begin} * step.spec.hidden_size, end - begin);
              });
}

void NormTile(const StepContext& step, std::span<const float> weight, MicroBatch& batch,
              size_t first, uint32_t row_count) {
  NormRows(step.kernels, {.weight = weight,
                          .epsilon = step.spec.rms_norm_epsilon,
                          .x = batch.x.data() + first,
                          .row_count = row_count,
                          .y = batch.normed.data() + first});
}

void AddTileToResidual(const StepContext& step, MicroBatch& batch, size_t first,
                       uint32_t row_count) {
  step.kernels.add(batch.branch.data() + first, batch.x.data() + first,
                   size_t{row_count} * step.spec.hidden_size);
}

// Norm, attention, residual, and the norm of what follows.
void Attend(const StepContext& step, LayerId layer, MicroBatch& batch) {
  const StageTimer timer(step.clock, step.times, Stage::kAttention);
  const LayerWeights& weights = step.weights.layers[layer.value()];
  ForRowTiles(step, batch, 1, [&](size_t first, uint32_t row_count) {
    NormTile(step, weights.input_norm, batch, first, row_count);
  });
  step.attention.Run(layer, batch.rows, batch.normed.data(), batch.branch.data(), step.cache);
  ForRowTiles(step, batch, 2, [&](size_t first, uint32_t row_count) {
    AddTileToResidual(step, batch, first, row_count);
    NormTile(step, weights.post_attention_norm, batch, first, row_count);
  });
}

void RunDense(const StepContext& step, LayerId layer, MicroBatch& batch) {
  const StageTimer timer(step.clock, step.times, Stage::kDense);
  RunFfn(step.kernels, step.pool,
         {.weights = step.weights.layers[layer.value()].dense,
          .x = batch.normed.data(),
          .row_count = batch.row_count(),
          .y = batch.branch.data(),
          .scratch = &batch.scratch,
          .prepared = &batch.prepared});
  ForRowTiles(step, batch, 1, [&](size_t first, uint32_t row_count) {
    AddTileToResidual(step, batch, first, row_count);
  });
}

void ChooseExperts(const StepContext& step, LayerId layer, MicroBatch& batch) {
  const StageTimer timer(step.clock, step.times, Stage::kGate);
  const GateInput input{.spec = step.spec,
                        .layer = step.weights.layers[layer.value()],
                        .kernels = step.kernels,
                        .x = batch.normed.data(),
                        .row_count = batch.row_count(),
                        .pool = &step.pool};
  if (!step.forced_experts) {
    RunGate(input, batch.gate);
    return;
  }
  const size_t top_k = step.spec.top_k;
  batch.gate.experts.resize(batch.row_count() * top_k);
  for (uint32_t row = 0; row < batch.row_count(); ++row) {
    step.forced_experts(layer, batch.origins[row],
                        std::span(batch.gate.experts).subspan(row * top_k, top_k));
  }
  WeighForcedExperts(input, batch.gate);
}

absl::Status DispatchRows(const StepContext& step, LayerId layer, MicroBatch& batch) {
  const StageTimer timer(step.clock, step.times, Stage::kDispatch);
  const size_t value_count = size_t{batch.row_count()} * step.spec.hidden_size;
  SY_ASSIGN_OR_RETURN(batch.ticket,
                      step.dispatcher.Send({.layer = layer,
                                            .row_count = batch.row_count(),
                                            .rows = std::span(batch.normed).first(value_count),
                                            .experts = batch.gate.experts}));
  return absl::OkStatus();
}

void RunShared(const StepContext& step, LayerId layer, MicroBatch& batch) {
  if (step.spec.shared_expert_count == 0) {
    return;
  }
  const StageTimer timer(step.clock, step.times, Stage::kShared);
  RunFfn(step.kernels, step.pool,
         {.weights = step.weights.layers[layer.value()].shared,
          .x = batch.normed.data(),
          .row_count = batch.row_count(),
          .y = batch.shared.data(),
          .scratch = &batch.scratch,
          .prepared = &batch.prepared});
}

absl::Status AwaitExperts(const StepContext& step, MicroBatch& batch) {
  const StageTimer timer(step.clock, step.times, Stage::kWait);
  const DispatchTicket ticket = *batch.ticket;
  batch.ticket.reset();
  const size_t value_count = size_t{batch.row_count()} * step.spec.top_k * step.spec.hidden_size;
  return step.dispatcher.Await(ticket, std::span(batch.expert_rows).first(value_count));
}

// Brings the rows that are at the shards back into the residual stream, if there are any.
absl::Status CollectExperts(const StepContext& step, MicroBatch& batch) {
  if (!batch.ticket) {
    return absl::OkStatus();
  }
  SY_RETURN_IF_ERROR(AwaitExperts(step, batch));
  const StageTimer timer(step.clock, step.times, Stage::kCombine);
  const size_t top_k = step.spec.top_k;
  const size_t hidden = step.spec.hidden_size;
  // Counted as two passes only: answers to few rows lie in this thread's caches.
  ForRowTiles(step, batch, 2, [&](size_t first, uint32_t row_count) {
    Combine({.row_count = row_count,
             .top_k = step.spec.top_k,
             .hidden_size = step.spec.hidden_size,
             .expert_rows = batch.expert_rows.data() + first * top_k,
             .weights = batch.gate.weights.data() + first / hidden * top_k,
             .shared = step.spec.shared_expert_count > 0 ? batch.shared.data() + first : nullptr,
             .out = batch.x.data() + first});
  });
  return absl::OkStatus();
}

// The layer loop. A batch collects the experts of its last layer right before its next attention,
// so with two batches the experts of one run while the attention of the other does.
absl::Status RunLayers(const StepContext& step, std::span<MicroBatch> batches) {
  for (uint16_t index = 0; index < step.spec.layer_count; ++index) {
    const LayerId layer(index);
    for (MicroBatch& batch : batches) {
      SY_RETURN_IF_ERROR(CollectExperts(step, batch));
      Attend(step, layer, batch);
      if (!step.spec.IsMoeLayer(index)) {
        RunDense(step, layer, batch);
        continue;
      }
      ChooseExperts(step, layer, batch);
      SY_RETURN_IF_ERROR(DispatchRows(step, layer, batch));
      RunShared(step, layer, batch);
    }
  }
  for (MicroBatch& batch : batches) {
    SY_RETURN_IF_ERROR(CollectExperts(step, batch));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunStep(const StepContext& step, std::span<MicroBatch> batches) {
  {
    const StageTimer timer(step.clock, step.times, Stage::kEmbed);
    for (MicroBatch& batch : batches) {
      Embed(step, batch);
    }
  }
  const absl::Status status = RunLayers(step, batches);
  for (MicroBatch& batch : batches) {
    if (batch.ticket) {  // Only after a failure: every ticket is awaited once.
      AwaitExperts(step, batch).IgnoreError();
    }
  }
  return status;
}

void RunHeads(const StepContext& step, std::span<const MicroBatch> batches, HeadScratch& scratch,
              const LogitsConsumer& consume) {
  const size_t hidden = step.spec.hidden_size;
  const size_t vocab = step.spec.vocab_size;
  for (const MicroBatch& batch : batches) {
    for (size_t first = 0; first < batch.logits_rows.size(); first += kHeadRowsMax) {
      const size_t count = std::min(kHeadRowsMax, batch.logits_rows.size() - first);
      const auto rows = std::span(batch.logits_rows).subspan(first, count);
      Resize(scratch.x, count * hidden);
      Resize(scratch.logits, count * vocab);
      for (size_t i = 0; i < count; ++i) {
        std::copy_n(&batch.x[rows[i] * hidden], hidden, &scratch.x[i * hidden]);
      }
      {
        const StageTimer timer(step.clock, step.times, Stage::kHead);
        RunHead(step.kernels, step.pool,
                {.spec = step.spec,
                 .weights = step.weights,
                 .x = scratch.x.data(),
                 .row_count = static_cast<uint32_t>(count),
                 .logits = scratch.logits.data(),
                 .scratch = &scratch.norm,
                 .prepared = &scratch.prepared});
      }
      const StageTimer timer(step.clock, step.times, Stage::kSampling);
      for (size_t i = 0; i < count; ++i) {
        consume(batch.origins[rows[i]], std::span(scratch.logits).subspan(i * vocab, vocab));
      }
    }
  }
}

}  // namespace switchyard
