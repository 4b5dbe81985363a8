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
#include "libs/scheduler/sequence.h"
#include "libs/scheduler/step_plan.h"

namespace switchyard {

struct SchedulerLimits {
  uint32_t step_tokens_max = 512;   // Rows of one step.
  uint32_t chunk_tokens_max = 256;  // Rows of one sequence in one step.
  uint32_t sequences_max = 256;     // Running at once; step_tokens_max bounds them too.
  uint32_t waiting_max = 4096;      // Added, not yet started.
  uint32_t block_tokens = 16;       // Tokens per cache block.
};

// A sequence to run. `tokens` holds the prompt and, for a stream that moved here, what it
// generated.
struct SequenceRequest {
  RequestId id{};
  std::vector<TokenId> tokens{};
  uint32_t prompt_length = 0;
  int32_t priority = 0;
  bool all_logits = false;
};

// Scheduler decides which tokens run in each step and which sequence holds which cache blocks.
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

  // Frees the blocks of a running sequence and queues it again; all its tokens will be recomputed.
  // False when it does not run.
  bool Preempt(RequestId id);

  // Null when there is no such sequence.
  const Sequence* Find(RequestId id) const;

  // Tokens one sequence may have at most, for the size of the cache.
  uint32_t sequence_tokens_max() const;

  uint32_t running_count() const { return static_cast<uint32_t>(running_.size()); }

  uint32_t waiting_count() const { return static_cast<uint32_t>(waiting_.size()); }

  const SchedulerLimits& limits() const { return limits_; }

  const BlockPool& pool() const { return pool_; }

 private:
  struct InOrder {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->Before(*b); }
  };

  uint32_t BlocksFor(uint32_t token_count) const;
  uint32_t UnreservedBlocks() const;
  void PlanDecodes(StepPlan& plan);
  void PlanPrefills(StepPlan& plan);
  void Admit(Instant now, StepPlan& plan);
  void AddChunk(Sequence& sequence, StepPlan& plan);
  bool ReserveBlocks(Sequence& sequence, uint32_t token_count, StepPlan& plan);
  void PreemptVictim(Sequence& victim, StepPlan& plan);
  void ReleaseBlocks(Sequence& sequence);
  void StopRunning(const Sequence& sequence);

  const SchedulerLimits limits_;
  BlockPool& pool_;
  uint64_t next_arrival_ = 1;
  std::unordered_map<RequestId, std::unique_ptr<Sequence>> sequences_;
  std::vector<Sequence*> running_;  // In order of Before().
  std::set<Sequence*, InOrder> waiting_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_SCHEDULER_SCHEDULER_H_
