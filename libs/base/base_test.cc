#include <array>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/bounded_queue.h"
#include "libs/base/clock.h"
#include "libs/base/file.h"
#include "libs/base/ids.h"
#include "libs/base/rng.h"
#include "libs/base/snapshot.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

TEST(BoundedQueue, RefusesWhenFullAndKeepsOrder) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.TryPop(), 1);
  EXPECT_EQ(queue.TryPop(), 2);
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueue, ClosedQueueDrainsThenEnds) {
  BoundedQueue<int> queue(2);
  ASSERT_TRUE(queue.TryPush(7));
  queue.Close();
  EXPECT_FALSE(queue.TryPush(8));
  EXPECT_EQ(queue.PopWithTimeout(absl::Seconds(5)), 7);
  EXPECT_EQ(queue.PopWithTimeout(absl::Seconds(5)), std::nullopt);
}

TEST(BoundedQueue, HandsEveryValueOverOnceAcrossThreads) {
  BoundedQueue<int> queue(4);
  constexpr int kPerThread = 500;
  std::vector<std::thread> producers;
  for (int t = 0; t < 3; ++t) {
    producers.emplace_back([&queue, t] {
      for (int i = 0; i < kPerThread; ++i) {
        while (!queue.TryPush(t * kPerThread + i)) {
          std::this_thread::yield();
        }
      }
    });
  }
  std::vector<int> seen(3 * kPerThread, 0);
  for (int i = 0; i < 3 * kPerThread; ++i) {
    const auto value = queue.PopWithTimeout(absl::Seconds(20));
    ASSERT_TRUE(value.has_value());
    ++seen[static_cast<size_t>(*value)];
  }
  for (std::thread& producer : producers) {
    producer.join();
  }
  for (const int count : seen) {
    EXPECT_EQ(count, 1);
  }
}

TEST(CounterRandom, IsAPureFunctionWithFixedValues) {
  EXPECT_EQ(CounterRandom(1, 2, 3), CounterRandom(1, 2, 3));
  EXPECT_NE(CounterRandom(1, 2, 3), CounterRandom(1, 2, 4));
  EXPECT_NE(CounterRandom(1, 2, 3), CounterRandom(1, 3, 3));
  // First output of SplitMix64 seeded with 0, from its authors' reference code.
  EXPECT_EQ(Mix64(0), 0xe220a8397b1dcdafULL);
}

TEST(ToUnitFloat, StaysBelowOne) {
  EXPECT_EQ(ToUnitFloat(0), 0.0F);
  EXPECT_LT(ToUnitFloat(~0ULL), 1.0F);
}

TEST(Annotate, KeepsTheCode) {
  const absl::Status status = Annotate(NotFound("no {}", 3), "load");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(MessageOf(status), "load: no 3");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "load").ok());
}

TEST(Files, WritesAndReads) {
  const std::string path = testing::TempDir() + "/sy_base_file";
  ASSERT_TRUE(WriteFileAtomically(path, "hello").ok());
  EXPECT_EQ(ReadFile(path, 100).value(), "hello");
  EXPECT_EQ(ReadFile(path, 3).status().code(), absl::StatusCode::kResourceExhausted);
  const auto file = InputFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->size(), 5U);
  std::array<std::byte, 3> part = {};
  ASSERT_TRUE(file->ReadAt(1, part).ok());
  EXPECT_EQ(part[2], std::byte{'l'});
  EXPECT_EQ(file->ReadAt(3, part).code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(file->CheckUnchanged().ok());
  EXPECT_EQ(InputFile::Open(path + "-none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(InputFile::Open(testing::TempDir()).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Files, OutputFileGrowsAndReplaces) {
  const std::string path = testing::TempDir() + "/sy_base_output";
  ASSERT_TRUE(WriteFileAtomically(path, "before").ok());
  auto file = OutputFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string text = "ab";
  ASSERT_TRUE(file->Append(std::as_bytes(std::span(text))).ok());
  ASSERT_TRUE(file->Append(std::as_bytes(std::span(text))).ok());
  ASSERT_TRUE(file->Finish().ok());
  EXPECT_EQ(ReadFile(path, 100).value(), "abab");
  EXPECT_EQ(OutputFile::Create(testing::TempDir() + "/none/x").status().code(),
            absl::StatusCode::kNotFound);
}

TEST(ManualClock, MovesOnlyWhenTold) {
  ManualClock clock;
  const Instant start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(std::chrono::milliseconds(5));
  EXPECT_EQ(clock.Now() - start, std::chrono::milliseconds(5));
}

TEST(Snapshot, OldVersionLivesWithItsReader) {
  Snapshot<int> snapshot(std::make_shared<const int>(1));
  const auto pinned = snapshot.Get();
  snapshot.Set(std::make_shared<const int>(2));
  EXPECT_EQ(*pinned, 1);
  EXPECT_EQ(*snapshot.Get(), 2);
}

TEST(StrongId, FormatsAsItsNumber) { EXPECT_EQ(fmt::format("{}", ExpertId(7)), "7"); }

}  // namespace
}  // namespace switchyard
