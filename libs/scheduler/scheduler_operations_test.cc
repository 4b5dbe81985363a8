// Random sequences of operations against the scheduler's invariants.

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/scheduler/scheduler.h"

namespace switchyard {
namespace {

struct Expected {
  uint32_t prompt_length = 0;
  bool skip_cached = false;
  uint32_t tokens_wanted = 0;  // Prompt and generated.
  uint64_t added_at_step = 0;
  int32_t priority = 0;
};

// Drives one scheduler with random work and checks what must hold after every operation.
class Driver {
 public:
  explicit Driver(uint64_t seed)
      : rng_(seed),
        pool_(static_cast<uint32_t>(4 + rng_.Below(40))),
        scheduler_({.step_tokens_max = static_cast<uint32_t>(1 + rng_.Below(40)),
                    .chunk_tokens_max = static_cast<uint32_t>(1 + rng_.Below(20)),
                    .prefill_tokens_with_decodes_max = static_cast<uint32_t>(1 + rng_.Below(20)),
                    .sequences_max = static_cast<uint32_t>(1 + rng_.Below(12)),
                    .waiting_max = 20,
                    .block_tokens = uint32_t{1} << rng_.Below(4),
                    .prefix_cache = rng_.Chance(0.8F)},
                   pool_),
        rows_(size_t{pool_.block_count()} * scheduler_.limits().block_tokens) {}

  void Run(int operation_count) {
    for (int i = 0; i < operation_count && !testing::Test::HasFatalFailure(); ++i) {
      const uint64_t dice = rng_.Below(10);
      if (dice < 2) {
        Add();
      } else if (dice == 2 && rng_.Chance(0.3F)) {
        Cancel();
      } else if (dice == 3 && rng_.Chance(0.3F)) {
        Preempt();
      } else {
        Step();
      }
      CheckInvariants();
    }
    // Nothing new: all that was accepted ends, so none starves.
    for (int i = 0; i < 20000 && !expected_.empty() && !testing::Test::HasFatalFailure(); ++i) {
      Step();
      CheckInvariants();
    }
    EXPECT_TRUE(expected_.empty()) << expected_.size() << " sequences never ended";
    EXPECT_EQ(scheduler_.free_block_count(), pool_.block_count());
    EXPECT_EQ(pool_.free_count() + scheduler_.cached_block_count(), pool_.block_count());
  }

  uint64_t hit_tokens() const { return scheduler_.prefix_stats().hit_tokens; }

 private:
  void Add() {
    const auto room = scheduler_.sequence_tokens_max();
    const auto prompt = static_cast<uint32_t>(1 + rng_.Below(room + 1));
    const auto total = prompt + static_cast<uint32_t>(rng_.Below(20));
    const RequestId id(++last_id_);
    const auto priority = static_cast<int32_t>(rng_.Below(3));
    const bool full = scheduler_.waiting_count() >= scheduler_.limits().waiting_max;
    const bool skip_cached = rng_.Chance(0.1F);
    const PrefixScope scope{static_cast<uint8_t>(rng_.Below(2))};
    std::vector<TokenId> tokens(prompt, 1);
    tokens[rng_.Below(prompt)] = 2;  // So that beginnings of many lengths are equal.
    const auto resumed = static_cast<uint32_t>(rng_.Chance(0.2F) ? rng_.Below(prompt) : 0);
    const absl::Status status = scheduler_.Add({.id = id,
                                                .tokens = std::move(tokens),
                                                .prompt_length = prompt - resumed,
                                                .priority = priority,
                                                .skip_cached = skip_cached,
                                                .prefix_scope = scope},
                                               Instant{});
    EXPECT_EQ(status.ok(), prompt <= room && !full) << status;
    if (status.ok()) {
      expected_[id] = {prompt - resumed, skip_cached, std::min(total, room), steps_, priority};
    }
  }

  void Cancel() {
    if (!expected_.empty()) {
      auto chosen = expected_.begin();
      std::advance(chosen, rng_.Below(expected_.size()));
      EXPECT_TRUE(scheduler_.Cancel(chosen->first));
      expected_.erase(chosen);
    }
  }

  void Preempt() {
    if (!expected_.empty()) {
      auto chosen = expected_.begin();
      std::advance(chosen, rng_.Below(expected_.size()));
      scheduler_.Preempt(chosen->first);
    }
  }

  void Step() {
    ++steps_;
    StepPlan plan;
    const auto decodes = static_cast<uint32_t>(std::ranges::count_if(
        expected_, [this](const auto& entry) { return IsDecode(*scheduler_.Find(entry.first)); }));
    scheduler_.Plan(Instant{}, plan);
    CheckPlan(plan);
    if (decodes > 0 && plan.preempted.empty()) {
      EXPECT_LE(plan.token_count - decodes, scheduler_.limits().prefill_tokens_with_decodes_max);
    }
    Compute(plan);
    if (!expected_.empty()) {
      EXPECT_FALSE(plan.empty()) << "work but no progress";
    }
    scheduler_.Commit(plan);
    for (const Chunk& chunk : plan.chunks) {
      const RequestId id = chunk.sequence->id;
      if (chunk.sequence->remaining() > 0) {
        continue;
      }
      if (chunk.sequence->token_count() >= expected_[id].tokens_wanted) {
        scheduler_.Finish(id);
        expected_.erase(id);
      } else {
        scheduler_.Append(id, 2);
      }
    }
  }

  // What the row of a position must be: a hash of the scope and of all tokens and forms up to it.
  static uint64_t NextRow(uint64_t row_before, const Sequence& sequence, uint32_t position) {
    const bool expanded = position < sequence.prompt_length;
    return Mix64(row_before ^ (uint64_t{sequence.tokens[position]} << 1 | (expanded ? 1U : 0U)));
  }

  static uint64_t FirstRow(const Sequence& sequence) { return Mix64(sequence.prefix_scope[0]); }

  uint64_t& RowAt(const Sequence& sequence, uint32_t position) {
    const uint32_t block_tokens = scheduler_.limits().block_tokens;
    const size_t block = sequence.blocks[position / block_tokens].value();
    return rows_[block * block_tokens + position % block_tokens];
  }

  // Does what the engine would: writes the rows of the plan, each from the one before it.
  void Compute(const StepPlan& plan) {
    for (const Chunk& chunk : plan.chunks) {
      const Sequence& sequence = *chunk.sequence;
      for (uint32_t i = 0; i < chunk.token_count; ++i) {
        const uint32_t position = chunk.first_position + i;
        const uint64_t before = position == 0 ? FirstRow(sequence) : RowAt(sequence, position - 1);
        RowAt(sequence, position) = NextRow(before, sequence, position);
      }
    }
  }

  void CheckRows(const Sequence& sequence) {
    uint64_t row = FirstRow(sequence);
    for (uint32_t position = 0; position < sequence.computed_count; ++position) {
      row = NextRow(row, sequence, position);
      ASSERT_EQ(RowAt(sequence, position), row)
          << "sequence " << sequence.id.value() << " position " << position;
    }
  }

  static bool IsDecode(const Sequence& sequence) {
    return sequence.remaining() == 1 && sequence.computed_count > 0;
  }

  void CheckPlan(const StepPlan& plan) {
    const SchedulerLimits& limits = scheduler_.limits();
    std::set<RequestId> seen;
    uint32_t tokens = 0;
    uint32_t decodes = 0;
    for (const Chunk& chunk : plan.chunks) {
      const Sequence& sequence = *chunk.sequence;
      EXPECT_TRUE(seen.insert(sequence.id).second) << "two chunks of one sequence";
      EXPECT_GT(chunk.token_count, 0U);
      EXPECT_LE(chunk.token_count, limits.chunk_tokens_max);
      EXPECT_EQ(chunk.first_position, sequence.computed_count);
      const uint32_t end = chunk.first_position + chunk.token_count;
      EXPECT_LE(end, sequence.token_count());
      EXPECT_GE(sequence.blocks.size() * limits.block_tokens, end);
      EXPECT_EQ(chunk.logits == LogitsNeed::kLast, end == sequence.token_count());
      tokens += chunk.token_count;
      decodes += IsDecode(sequence) ? 1 : 0;
    }
    EXPECT_EQ(tokens, plan.token_count);
    EXPECT_EQ(decodes, plan.decode_count);
    EXPECT_LE(tokens, limits.step_tokens_max);
    EXPECT_LE(plan.chunks.size(), limits.sequences_max);
  }

  void CheckInvariants() {
    std::set<uint32_t> held;
    uint32_t running = 0;
    for (const auto& [id, expected] : expected_) {
      const Sequence* sequence = scheduler_.Find(id);
      ASSERT_NE(sequence, nullptr);
      EXPECT_EQ(sequence->prompt_length, expected.prompt_length);
      EXPECT_LE(sequence->computed_count, sequence->token_count());
      EXPECT_GE(sequence->blocks.size() * scheduler_.limits().block_tokens,
                sequence->computed_count);
      if (sequence->state == SequenceState::kWaiting) {
        EXPECT_TRUE(sequence->blocks.empty());
        EXPECT_EQ(sequence->computed_count, 0U);
      }
      running += sequence->state == SequenceState::kRunning ? 1 : 0;
      EXPECT_TRUE(!expected.skip_cached || sequence->cached_prompt_tokens == 0);
      for (const BlockId block : sequence->blocks) {
        held.insert(block.value());
      }
      CheckRows(*sequence);
    }
    EXPECT_EQ(held.size() + scheduler_.free_block_count(), pool_.block_count());
    EXPECT_EQ(running, scheduler_.running_count());
    EXPECT_EQ(expected_.size(), scheduler_.running_count() + scheduler_.waiting_count());
  }

  Rng rng_;
  BlockPool pool_;
  Scheduler scheduler_;
  std::vector<uint64_t> rows_;  // [block][slot]: stands for the cache.
  std::map<RequestId, Expected> expected_;
  uint64_t last_id_ = 0;
  uint64_t steps_ = 0;
};

TEST(SchedulerOperations, KeepItsInvariantsAndLetEverySequenceEnd) {
  uint64_t hit_tokens = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Driver driver(seed);
    driver.Run(300);
    if (HasFailure()) {
      return;
    }
    hit_tokens += driver.hit_tokens();
  }
  EXPECT_GT(hit_tokens, 1000U);
}

}  // namespace
}  // namespace switchyard
