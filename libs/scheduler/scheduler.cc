#include "libs/scheduler/scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

// Tokens for which a sequence that starts makes room at once: no allocation while it decodes so
// far.
constexpr uint32_t kTokensReservedMax = 4096;

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

Scheduler::Scheduler(SchedulerLimits limits, BlockPool& pool)
    : limits_(limits), block_count_(pool.block_count()), tree_(pool, limits.block_tokens) {
  SY_CHECK(limits_.step_tokens_max > 0 && limits_.chunk_tokens_max > 0);
  SY_CHECK(limits_.prefill_tokens_with_decodes_max > 0);
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
  sequence->skip_cached = request.skip_cached;
  sequence->tokens_expected = request.tokens_expected;
  sequence->prefix_scope = request.prefix_scope;
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
  const uint32_t decodes = plan.decode_count;
  const uint32_t room = limits_.step_tokens_max - decodes;
  const uint32_t tokens_max =
      decodes + (decodes == 0 ? room : std::min(room, limits_.prefill_tokens_with_decodes_max));
  PlanPrefills(tokens_max, plan);
  Admit(now, tokens_max, plan);
}

void Scheduler::Commit(const StepPlan& plan) {
  for (const Chunk& chunk : plan.chunks) {
    Sequence& sequence = *sequences_.at(chunk.sequence->id);
    SY_CHECK(sequence.computed_count == chunk.first_position);
    sequence.computed_count += chunk.token_count;
    if (limits_.prefix_cache) {
      CacheFullBlocks(sequence, chunk.first_position);
    }
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
  const uint64_t tokens = uint64_t{block_count_} * limits_.block_tokens;
  return static_cast<uint32_t>(std::min<uint64_t>(tokens, UINT32_MAX));
}

PrefixStats Scheduler::prefix_stats() const {
  PrefixStats stats = stats_;
  stats.evicted_blocks = tree_.evicted_total();
  return stats;
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
  const uint32_t free = tree_.available_count();
  return reserved >= free ? 0 : free - static_cast<uint32_t>(reserved);
}

// Preemption takes from the back of running_, so an index walk from the front stays valid.
void Scheduler::PlanDecodes(StepPlan& plan) {
  for (size_t i = 0; i < running_.size(); ++i) {
    if (IsDecode(*running_[i])) {
      AddChunk(*running_[i], limits_.step_tokens_max, plan);
    }
  }
}

// The first to come takes as much as it may, so that prompts end one after the other.
void Scheduler::PlanPrefills(uint32_t tokens_max, StepPlan& plan) {
  for (size_t i = 0; i < running_.size() && plan.token_count < tokens_max; ++i) {
    if (!IsDecode(*running_[i])) {
      AddChunk(*running_[i], tokens_max, plan);
    }
  }
}

void Scheduler::Admit(Instant now, uint32_t tokens_max, StepPlan& plan) {
  if (waiting_.empty()) {
    return;
  }
  const uint32_t running_max = std::min(limits_.sequences_max, limits_.step_tokens_max);
  uint32_t unreserved = UnreservedBlocks();
  while (!waiting_.empty() && running_.size() < running_max && plan.token_count < tokens_max) {
    Sequence& sequence = **waiting_.begin();
    MatchCached(sequence);
    // A cached block that nobody holds is one less for others, as a free one is.
    const auto held = static_cast<uint32_t>(
        std::ranges::count_if(matched_, [this](BlockId block) { return tree_.IsHeld(block); }));
    const uint32_t needed = BlocksFor(sequence.token_count()) - held;
    if (needed > unreserved) {
      return;  // Nothing overtakes the head of the queue, so a long prompt cannot starve.
    }
    unreserved -= needed;
    waiting_.erase(waiting_.begin());
    Start(sequence, now);
    AddChunk(sequence, tokens_max, plan);
  }
}

// Finds the cached blocks of a waiting sequence. Its last known position is always computed: its
// logits are needed.
void Scheduler::MatchCached(const Sequence& sequence) {
  matched_.clear();
  if (limits_.prefix_cache && !sequence.skip_cached) {
    tree_.Match(sequence.Run(sequence.tokens.size() - 1), matched_);
  }
}

// Makes a waiting sequence a running one, which holds the blocks matched for it.
void Scheduler::Start(Sequence& sequence, Instant now) {
  const uint32_t reserved = std::min(sequence.tokens_expected, kTokensReservedMax);
  sequence.tokens.reserve(reserved);
  sequence.blocks.reserve(BlocksFor(reserved));
  for (const BlockId block : matched_) {
    tree_.Hold(block);
    sequence.blocks.push_back(block);
  }
  sequence.computed_count = static_cast<uint32_t>(matched_.size()) * limits_.block_tokens;
  if (limits_.prefix_cache && !sequence.skip_cached) {
    stats_.queried_tokens += sequence.token_count();
  }
  stats_.hit_tokens += sequence.computed_count;
  if (sequence.started_at == Instant{}) {
    sequence.started_at = now;
    sequence.cached_prompt_tokens = std::min(sequence.computed_count, sequence.prompt_length);
  }
  sequence.state = SequenceState::kRunning;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), &sequence, InOrder()),
                  &sequence);
}

// Adds what fits of the sequence to a plan of `tokens_max` rows.
void Scheduler::AddChunk(Sequence& sequence, uint32_t tokens_max, StepPlan& plan) {
  const uint32_t count =
      std::min({sequence.remaining(), limits_.chunk_tokens_max, tokens_max - plan.token_count});
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
    if (const std::optional<BlockId> block = tree_.Allocate()) {
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

void Scheduler::CacheFullBlocks(Sequence& sequence, uint32_t computed_before) {
  const uint32_t full = sequence.computed_count / limits_.block_tokens;
  for (uint32_t index = computed_before / limits_.block_tokens; index < full; ++index) {
    tree_.Insert(sequence.Run(size_t{index + 1} * limits_.block_tokens), index, sequence.blocks);
  }
}

// The last block first, as the tree asks for.
void Scheduler::ReleaseBlocks(Sequence& sequence) {
  for (size_t i = sequence.blocks.size(); i-- > 0;) {
    tree_.Release(sequence.blocks[i]);
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
