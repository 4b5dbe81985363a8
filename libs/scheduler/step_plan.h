#ifndef SWITCHYARD_LIBS_SCHEDULER_STEP_PLAN_H_
#define SWITCHYARD_LIBS_SCHEDULER_STEP_PLAN_H_

#include <cstdint>
#include <vector>

#include "libs/scheduler/sequence.h"

namespace switchyard {

enum class LogitsNeed : uint8_t {
  kNone,  // A chunk that ends before the last known token.
  kLast,  // Its last row draws the next token.
  kAll,   // Every row: scored prompts, observers.
};

// Positions [first_position, first_position + token_count) of one sequence, computed in one step.
struct Chunk {
  const Sequence* sequence = nullptr;  // Valid until the plan is committed.
  uint32_t first_position = 0;
  uint32_t token_count = 0;
  LogitsNeed logits = LogitsNeed::kNone;
};

// StepPlan is what one step computes: at most one chunk of a sequence, blocks reserved.
//
// One owner: the step thread, which reuses it from step to step.
struct StepPlan {
  std::vector<Chunk> chunks;         // Decodes first.
  uint32_t token_count = 0;          // Over all chunks.
  uint32_t decode_count = 0;         // Chunks of a single, last known token.
  std::vector<RequestId> preempted;  // Lost their blocks while this plan was made.

  bool empty() const { return chunks.empty(); }

  void Clear() {
    chunks.clear();
    token_count = 0;
    decode_count = 0;
    preempted.clear();
  }
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_SCHEDULER_STEP_PLAN_H_
