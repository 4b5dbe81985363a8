// A steady step asks for no memory: this binary counts what it allocates.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "gtest/gtest.h"

#include "libs/scheduler/scheduler.h"

namespace {

std::atomic<uint64_t> allocation_count = 0;

}  // namespace

__attribute__((noinline)) void* operator new(size_t size) {
  allocation_count.fetch_add(1, std::memory_order_relaxed);
  void* const memory = std::malloc(size);
  if (memory == nullptr) {
    std::abort();
  }
  return memory;
}

__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }

__attribute__((noinline)) void operator delete(void* memory, size_t /*size*/) noexcept {
  std::free(memory);
}

namespace switchyard {
namespace {

// Plans, commits and appends, with what the engine looks up on the way.
void Step(Scheduler& scheduler, StepPlan& plan) {
  scheduler.Plan(Instant{}, plan);
  scheduler.Commit(plan);
  for (const Chunk& chunk : plan.chunks) {
    const RequestId id = chunk.sequence->id;
    if (scheduler.Find(id)->remaining() == 0) {
      scheduler.Append(id, 3);
    }
  }
}

TEST(SchedulerAllocation, DecodesOfManyStepsAllocateNothing) {
  constexpr uint32_t kSequences = 40;
  constexpr uint32_t kSteps = 500;
  BlockPool pool(kSequences * 40 + 4);
  Scheduler scheduler({}, pool);
  for (uint32_t id = 1; id <= kSequences; ++id) {
    ASSERT_TRUE(scheduler
                    .Add({.id = RequestId(id),
                          .tokens = std::vector<TokenId>(20, id % 30),  // Some are equal.
                          .prompt_length = 20,
                          .tokens_expected = 20 + kSteps + 10},
                         Instant{})
                    .ok());
  }
  // One that waits for blocks all the time, and is looked up in the cache in each step.
  ASSERT_TRUE(scheduler
                  .Add({.id = RequestId(1000),
                        .tokens = std::vector<TokenId>(scheduler.sequence_tokens_max(), 1),
                        .prompt_length = 100},
                       Instant{})
                  .ok());
  StepPlan plan;
  for (int i = 0; i < 5; ++i) {
    Step(scheduler, plan);
  }
  ASSERT_EQ(plan.decode_count, kSequences);
  const uint64_t before = allocation_count.load();
  for (uint32_t i = 0; i < kSteps; ++i) {
    Step(scheduler, plan);
  }
  EXPECT_EQ(allocation_count.load(), before);
  EXPECT_EQ(plan.decode_count, kSequences);
  EXPECT_EQ(scheduler.waiting_count(), 1U);
}

}  // namespace
}  // namespace switchyard
