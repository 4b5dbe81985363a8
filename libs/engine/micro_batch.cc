#include "libs/engine/micro_batch.h"

#include <algorithm>

namespace switchyard {
namespace {

bool NeedsLogits(const Chunk& chunk, uint32_t row) {
  return chunk.logits == LogitsNeed::kAll ||
         (chunk.logits == LogitsNeed::kLast && row + 1 == chunk.token_count);
}

void AddRow(const Chunk& chunk, uint32_t chunk_index, uint32_t row, MicroBatch& batch) {
  const Sequence& sequence = *chunk.sequence;
  const uint32_t position = chunk.first_position + row;
  if (NeedsLogits(chunk, row)) {
    batch.logits_rows.push_back(batch.row_count());
  }
  batch.origins.push_back({.request = sequence.id, .position = position});
  batch.tokens.push_back(sequence.tokens[position]);
  batch.rows.push_back({.sequence_index = chunk_index,
                        .position = position,
                        .expanded = position < sequence.prompt_length,
                        .blocks = sequence.blocks});
}

}  // namespace

std::span<MicroBatch> SplitPlan(const StepPlan& plan, const SplitPolicy& policy,
                                std::vector<MicroBatch>& batches) {
  const bool whole = plan.token_count < std::max(policy.rows_min, policy.micro_batches);
  const uint32_t count = whole ? 1 : policy.micro_batches;
  const uint32_t rows_per_batch = (plan.token_count + count - 1) / count;
  if (batches.size() < count) {
    batches.resize(count);
  }
  for (MicroBatch& batch : batches) {
    batch.origins.clear();
    batch.tokens.clear();
    batch.rows.clear();
    batch.logits_rows.clear();
  }
  uint32_t added = 0;
  for (uint32_t i = 0; i < plan.chunks.size(); ++i) {
    for (uint32_t row = 0; row < plan.chunks[i].token_count; ++row) {
      AddRow(plan.chunks[i], i, row, batches[added++ / rows_per_batch]);
    }
  }
  return std::span(batches).first(count);
}

}  // namespace switchyard
