#ifndef SWITCHYARD_LIBS_SCHEDULER_SEQUENCE_H_
#define SWITCHYARD_LIBS_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/kvcache/block_pool.h"
#include "libs/kvcache/prefix_tree.h"

namespace switchyard {

enum class SequenceState : uint8_t { kWaiting, kRunning };

// Sequence is one stream of token ids, how far it has been computed, and the cache blocks it holds.
//
// Made and changed by the Scheduler only; read by the step thread. Lives until Finish() or
// Cancel().
struct Sequence {
  RequestId id;
  std::vector<TokenId> tokens;  // The prompt, then what was generated.
  uint32_t prompt_length = 0;
  bool all_logits = false;   // Every position needs logits, not only the last known one.
  bool skip_cached = false;  // Every position is computed, also what the prefix cache has.
  uint32_t tokens_expected = 0;
  PrefixScope prefix_scope{};
  int32_t priority = 0;  // Lower runs first.
  uint64_t arrival = 0;  // Grows with each Add().
  Instant arrived_at{};
  Instant started_at{};  // Of the first admission; the epoch before it.
  SequenceState state = SequenceState::kWaiting;
  uint32_t cached_prompt_tokens = 0;  // Found in the prefix cache at the first admission.
  uint32_t computed_count = 0;        // Positions [0, computed_count) are in the cache.
  std::vector<BlockId> blocks;        // Block table, covering at least [0, computed_count).

  uint32_t token_count() const { return static_cast<uint32_t>(tokens.size()); }

  uint32_t remaining() const { return token_count() - computed_count; }

  // The first `count` tokens, as the prefix cache knows them.
  PrefixRun Run(size_t count) const {
    return {.scope = prefix_scope,
            .tokens = std::span(tokens).first(count),
            .expanded_count = prompt_length};
  }

  std::span<const TokenId> prompt() const { return std::span(tokens).first(prompt_length); }

  std::span<const TokenId> generated() const { return std::span(tokens).subspan(prompt_length); }

  // True when this one runs before, and is preempted after, `other`.
  bool Before(const Sequence& other) const {
    return std::tie(priority, arrival) < std::tie(other.priority, other.arrival);
  }
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_SCHEDULER_SEQUENCE_H_
