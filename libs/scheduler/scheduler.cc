#include "libs/scheduler/scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

bool IsDecode(const Sequence& sequence) {
  return sequence.remaining() == 1 && sequence.computed_count > 0;
}

LogitsNeed NeedOf(const Sequence& sequence, uint32_t chunk_tokens) {
  if (sequence.all_logits) {
    return LogitsNeed::kAll;
  }
  return chunk_tokens == sequence.remaining() ? LogitsNeed::kLast : LogitsNeed::kNone;
}

}  // namespace

Scheduler::Scheduler(SchedulerLimits limits, BlockPool& pool) : limits_(limits), pool_(pool) {
  SY_CHECK(limits_.step_tokens_max > 0 && limits_.chunk_tokens_max > 0);
  SY_CHECK(limits_.sequences_max > 0 && limits_.block_tokens > 0);
}

Scheduler::~Scheduler() {
  for (auto& [id, sequence] : sequences_) {
    ReleaseBlocks(*sequence);
  }
}

absl::Status Scheduler::Add(SequenceRequest request, Instant now) {
  if (request.prompt_length == 0 || request.prompt_length > request.tokens.size()) {
    return InvalidArgument("sequence {}: prompt of {} tokens among {}", request.id,
                           request.prompt_length, request.tokens.size());
  }
  if (request.tokens.size() > sequence_tokens_max()) {
    return InvalidArgument("sequence {}: {} tokens do not fit a cache of {}", request.id,
                           request.tokens.size(), sequence_tokens_max());
  }
  if (sequences_.contains(request.id)) {
    return InvalidArgument("sequence {}: the id is in use", request.id);
  }
  if (waiting_.size() >= limits_.waiting_max) {
    return ResourceExhausted("sequence {}: {} requests are waiting already", request.id,
                             waiting_.size());
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->id = request.id;
  sequence->tokens = std::move(request.tokens);
  sequence->prompt_length = request.prompt_length;
  sequence->all_logits = request.all_logits;
  sequence->priority = request.priority;
  sequence->arrival = next_arrival_++;
  sequence->arrived_at = now;
  waiting_.insert(sequence.get());
  sequences_.emplace(request.id, std::move(sequence));
  return absl::OkStatus();
}

bool Scheduler::Cancel(RequestId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) {
    return false;
  }
  Sequence& sequence = *found->second;
  if (sequence.state == SequenceState::kRunning) {
    StopRunning(sequence);
  } else {
    waiting_.erase(&sequence);
  }
  ReleaseBlocks(sequence);
  sequences_.erase(found);
  return true;
}

void Scheduler::Plan(Instant now, StepPlan& plan) {
  plan.Clear();
  PlanDecodes(plan);
  PlanPrefills(plan);
  Admit(now, plan);
}

void Scheduler::Commit(const StepPlan& plan) {
  for (const Chunk& chunk : plan.chunks) {
    Sequence& sequence = *sequences_.at(chunk.sequence->id);
    SY_CHECK(sequence.computed_count == chunk.first_position);
    sequence.computed_count += chunk.token_count;
  }
}

void Scheduler::Append(RequestId id, TokenId token) {
  Sequence& sequence = *sequences_.at(id);
  SY_CHECK(sequence.remaining() == 0);
  sequence.tokens.push_back(token);
}

void Scheduler::Finish(RequestId id) { SY_CHECK(Cancel(id)); }

bool Scheduler::Preempt(RequestId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->state != SequenceState::kRunning) {
    return false;
  }
  StepPlan none;
  PreemptVictim(*found->second, none);
  return true;
}

const Sequence* Scheduler::Find(RequestId id) const {
  const auto found = sequences_.find(id);
  return found == sequences_.end() ? nullptr : found->second.get();
}

uint32_t Scheduler::sequence_tokens_max() const {
  const uint64_t tokens = uint64_t{pool_.block_count()} * limits_.block_tokens;
  return static_cast<uint32_t>(std::min<uint64_t>(tokens, UINT32_MAX));
}

uint32_t Scheduler::BlocksFor(uint32_t token_count) const {
  return token_count / limits_.block_tokens + (token_count % limits_.block_tokens != 0 ? 1 : 0);
}

// Free blocks that no running sequence needs for the tokens it knows already; 0 when short.
uint32_t Scheduler::UnreservedBlocks() const {
  uint64_t reserved = 0;
  for (const Sequence* sequence : running_) {
    const uint64_t needed = BlocksFor(sequence->token_count());
    reserved += needed - std::min<uint64_t>(needed, sequence->blocks.size());
  }
  const uint32_t free = pool_.free_count();
  return reserved >= free ? 0 : free - static_cast<uint32_t>(reserved);
}

// Preemption takes from the back of running_, so an index walk from the front stays valid.
void Scheduler::PlanDecodes(StepPlan& plan) {
  for (size_t i = 0; i < running_.size(); ++i) {
    if (IsDecode(*running_[i])) {
      AddChunk(*running_[i], plan);
    }
  }
}

void Scheduler::PlanPrefills(StepPlan& plan) {
  for (size_t i = 0; i < running_.size(); ++i) {
    if (plan.token_count >= limits_.step_tokens_max) {
      return;
    }
    if (!IsDecode(*running_[i])) {
      AddChunk(*running_[i], plan);
    }
  }
}

void Scheduler::Admit(Instant now, StepPlan& plan) {
  const uint32_t running_max = std::min(limits_.sequences_max, limits_.step_tokens_max);
  uint32_t unreserved = UnreservedBlocks();
  while (!waiting_.empty() && running_.size() < running_max &&
         plan.token_count < limits_.step_tokens_max) {
    Sequence& sequence = **waiting_.begin();
    const uint32_t needed = BlocksFor(sequence.token_count());
    if (needed > unreserved) {
      return;  // Nothing overtakes the head of the queue, so a long prompt cannot starve.
    }
    unreserved -= needed;
    waiting_.erase(waiting_.begin());
    sequence.state = SequenceState::kRunning;
    if (sequence.started_at == Instant{}) {
      sequence.started_at = now;
    }
    running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, InOrder()),
                    &sequence);
    AddChunk(sequence, plan);
  }
}

void Scheduler::AddChunk(Sequence& sequence, StepPlan& plan) {
  const uint32_t count = std::min(
      {sequence.remaining(), limits_.chunk_tokens_max, limits_.step_tokens_max - plan.token_count});
  if (count == 0 || !ReserveBlocks(sequence, sequence.computed_count + count, plan)) {
    return;
  }
  plan.decode_count += IsDecode(sequence) ? 1 : 0;
  plan.token_count += count;
  plan.chunks.push_back({.sequence = &sequence,
                         .first_position = sequence.computed_count,
                         .token_count = count,
                         .logits = NeedOf(sequence, count)});
}

// False when `sequence` itself was the victim.
bool Scheduler::ReserveBlocks(Sequence& sequence, uint32_t token_count, StepPlan& plan) {
  while (sequence.blocks.size() < BlocksFor(token_count)) {
    if (const std::optional<BlockId> block = pool_.Allocate()) {
      sequence.blocks.push_back(*block);
      continue;
    }
    Sequence& victim = *running_.back();
    PreemptVictim(victim, plan);
    if (&victim == &sequence) {
      return false;
    }
  }
  return true;
}

void Scheduler::PreemptVictim(Sequence& victim, StepPlan& plan) {
  const auto planned = std::find_if(plan.chunks.begin(), plan.chunks.end(),
                                    [&](const Chunk& chunk) { return chunk.sequence == &victim; });
  if (planned != plan.chunks.end()) {
    plan.token_count -= planned->token_count;
    plan.decode_count -= IsDecode(victim) ? 1 : 0;
    plan.chunks.erase(planned);
  }
  StopRunning(victim);
  ReleaseBlocks(victim);
  victim.computed_count = 0;
  victim.state = SequenceState::kWaiting;
  waiting_.insert(&victim);
  plan.preempted.push_back(victim.id);
}

void Scheduler::ReleaseBlocks(Sequence& sequence) {
  for (const BlockId block : sequence.blocks) {
    pool_.Release(block);
  }
  sequence.blocks.clear();
}

void Scheduler::StopRunning(const Sequence& sequence) {
  const auto found =
      std::lower_bound(running_.begin(), running_.end(), &sequence,
                       [](const Sequence* a, const Sequence* b) { return a->Before(*b); });
  SY_CHECK(found != running_.end() && *found == &sequence);
  running_.erase(found);
}

}  // namespace switchyard
