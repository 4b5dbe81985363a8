#ifndef SWITCHYARD_LIBS_SCHEDULER_SCHEDULER_H_
#define SWITCHYARD_LIBS_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/kvcache/block_pool.h"
#include "libs/kvcache/prefix_tree.h"
#include "libs/scheduler/sequence.h"
#include "libs/scheduler/step_plan.h"

namespace switchyard {

struct SchedulerLimits {
  uint32_t step_tokens_max = 512;   // Rows of one step.
  uint32_t chunk_tokens_max = 512;  // Rows of one sequence in one step.
  // Rows of all prefills in a step that has decodes, so that prompts do not stall running streams.
  uint32_t prefill_tokens_with_decodes_max = 256;
  uint32_t sequences_max = 256;  // Running at once; step_tokens_max bounds them too.
  uint32_t waiting_max = 4096;   // Added, not yet started.
  uint32_t block_tokens = 16;    // Tokens per cache block.
  bool prefix_cache = true;      // Equal beginnings of one scope are computed once.
};

// A sequence to run. `tokens` holds the prompt and, for a stream that moved here, what it
// generated.
struct SequenceRequest {
  RequestId id{};
  std::vector<TokenId> tokens{};
  uint32_t prompt_length = 0;
  int32_t priority = 0;
  bool all_logits = false;
  bool skip_cached = false;      // Compute every position, also what the prefix cache has.
  uint32_t tokens_expected = 0;  // It will have; room for some thousands is made beforehand.
  PrefixScope prefix_scope{};    // Cached blocks are shared within it only.
};

// What the prefix cache did; each value only grows.
struct PrefixStats {
  uint64_t queried_tokens = 0;  // Of admitted sequences, again after each preemption.
  uint64_t hit_tokens = 0;      // Of these, those that were not computed.
  uint64_t evicted_blocks = 0;
};

// Scheduler decides which tokens run in each step and which sequence holds which cache blocks. Full
// blocks stay cached after their sequence, until the room is needed.
//
// One owner: the step thread. Pure: time is a value, nothing is computed here. A step is Plan(),
// the computation, then Commit() or, when it failed, Finish() of its sequences; nothing else comes
// between Plan() and these.
class Scheduler {
 public:
  // `pool` outlives the scheduler, which alone takes blocks of it.
  Scheduler(SchedulerLimits limits, BlockPool& pool);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Queues a sequence. ResourceExhausted when waiting_max wait; InvalidArgument when its tokens can
  // never fit the cache, there is none, or the id is in use.
  absl::Status Add(SequenceRequest request, Instant now);

  // Ends a sequence in any state and frees its blocks; false when there is no such sequence.
  bool Cancel(RequestId id);

  // Fills `plan` with the next step. Empty when nothing can run.
  void Plan(Instant now, StepPlan& plan);

  // The rows of `plan` are in the cache.
  void Commit(const StepPlan& plan);

  // Adds a generated token to a sequence whose known tokens are all computed.
  void Append(RequestId id, TokenId token);

  // The same as Cancel(), for a sequence that must exist.
  void Finish(RequestId id);

  // Gives up the blocks of a running sequence and queues it again; what is not cached then will be
  // recomputed. False when it does not run.
  bool Preempt(RequestId id);

  // Null when there is no such sequence.
  const Sequence* Find(RequestId id) const;

  // Tokens one sequence may have at most, for the size of the cache.
  uint32_t sequence_tokens_max() const;

  uint32_t running_count() const { return static_cast<uint32_t>(running_.size()); }

  uint32_t waiting_count() const { return static_cast<uint32_t>(waiting_.size()); }

  const SchedulerLimits& limits() const { return limits_; }

  // Blocks that no sequence holds, cached ones among them.
  uint32_t free_block_count() const { return tree_.available_count(); }

  uint32_t cached_block_count() const { return tree_.cached_count(); }

  PrefixStats prefix_stats() const;

 private:
  struct InOrder {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->Before(*b); }
  };

  uint32_t BlocksFor(uint32_t token_count) const;
  uint32_t UnreservedBlocks() const;
  void PlanDecodes(StepPlan& plan);
  void PlanPrefills(uint32_t tokens_max, StepPlan& plan);
  void Admit(Instant now, uint32_t tokens_max, StepPlan& plan);
  void Start(Sequence& sequence, Instant now);
  void MatchCached(const Sequence& sequence);
  void AddChunk(Sequence& sequence, uint32_t tokens_max, StepPlan& plan);
  bool ReserveBlocks(Sequence& sequence, uint32_t token_count, StepPlan& plan);
  void PreemptVictim(Sequence& victim, StepPlan& plan);
  void CacheFullBlocks(Sequence& sequence, uint32_t computed_before);
  void ReleaseBlocks(Sequence& sequence);
  void StopRunning(const Sequence& sequence);

  const SchedulerLimits limits_;
  const uint32_t block_count_;
  PrefixTree tree_;
  PrefixStats stats_;             // Without evictions.
  std::vector<BlockId> matched_;  // Cached blocks of the sequence that may be admitted next.
  uint64_t next_arrival_ = 1;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;  // In order of Before().
  std::set<Sequence*, InOrder> waiting_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_SCHEDULER_SCHEDULER_H_
