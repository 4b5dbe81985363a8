#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include <unistd.h>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/kvcache/block_pool.h"
#include "libs/kvcache/kv_storage.h"

namespace switchyard {
namespace {

TEST(BlockPool, HandsOutEachBlockOnceAndThenNone) {
  BlockPool pool(3);
  std::set<uint32_t> seen;
  for (int i = 0; i < 3; ++i) {
    const std::optional<BlockId> block = pool.Allocate();
    ASSERT_TRUE(block.has_value());
    seen.insert(block->value());
  }
  EXPECT_EQ(seen, (std::set<uint32_t>{0, 1, 2}));
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.free_count(), 0U);
  pool.Release(BlockId(1));
  EXPECT_EQ(pool.Allocate(), BlockId(1));
}

TEST(BlockPool, SharedBlockIsFreeOnlyAfterItsLastRelease) {
  BlockPool pool(1);
  const BlockId block = pool.Allocate().value();
  pool.AddReference(block);
  EXPECT_EQ(pool.reference_count(block), 2U);
  pool.Release(block);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  pool.Release(block);
  EXPECT_EQ(pool.free_count(), 1U);
  EXPECT_EQ(pool.reference_count(block), 0U);
}

TEST(BlockPoolDeathTest, ReleasingAFreeBlockEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(BlockId(0)), "");
  EXPECT_DEATH(pool.AddReference(BlockId(0)), "");
}

// The pool against a map of counts, over random operations.
void RunOperations(uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  Rng rng(seed);
  const auto block_count = static_cast<uint32_t>(rng.Below(12));
  BlockPool pool(block_count);
  std::map<uint32_t, uint32_t> twin;  // Blocks in use and their references.
  const auto any_used = [&] {
    auto entry = twin.begin();
    std::advance(entry, static_cast<long>(rng.Below(twin.size())));
    return entry;
  };
  for (int step = 0; step < 300; ++step) {
    const uint64_t operation = rng.Below(3);
    if (operation == 0) {
      const std::optional<BlockId> block = pool.Allocate();
      ASSERT_EQ(block.has_value(), twin.size() < block_count);
      if (block.has_value()) {
        ASSERT_TRUE(twin.emplace(block->value(), 1U).second);
      }
    } else if (!twin.empty() && operation == 1) {
      const auto entry = any_used();
      pool.AddReference(BlockId(entry->first));
      ++entry->second;
    } else if (!twin.empty()) {
      const auto entry = any_used();
      pool.Release(BlockId(entry->first));
      if (--entry->second == 0) {
        twin.erase(entry);
      }
    }
    ASSERT_EQ(pool.free_count(), block_count - twin.size());
    for (uint32_t block = 0; block < block_count; ++block) {
      const auto entry = twin.find(block);
      ASSERT_EQ(pool.reference_count(BlockId(block)), entry == twin.end() ? 0U : entry->second);
    }
  }
}

TEST(BlockPool, AgreesWithACountPerBlockOverRandomOperations) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    RunOperations(seed);
  }
}

TEST(KvStorage, RowsAreDistinctAndStartAsZeros) {
  const KvLayout layout{
      .layer_count = 3, .latent_dim = 5, .block_size = 4, .block_count = 7, .dtype = Dtype::kBf16};
  EXPECT_EQ(layout.row_bytes(), 10U);
  EXPECT_EQ(layout.block_bytes(), 120U);
  KvStorage storage(layout);
  const auto for_each_row = [&](const auto& visit) {
    uint8_t tag = 0;
    for (uint32_t layer = 0; layer < layout.layer_count; ++layer) {
      for (uint32_t block = 0; block < layout.block_count; ++block) {
        for (uint32_t slot = 0; slot < layout.block_size; ++slot) {
          visit(storage.Row(layer, BlockId(block), slot), ++tag);
        }
      }
    }
  };
  for_each_row([&](void* row, uint8_t tag) {
    EXPECT_EQ(std::vector<uint8_t>(10, 0),
              std::vector<uint8_t>(static_cast<uint8_t*>(row), static_cast<uint8_t*>(row) + 10));
    std::memset(row, tag, layout.row_bytes());
  });
  for_each_row([&](const void* row, uint8_t tag) {
    const auto* bytes = static_cast<const uint8_t*>(row);
    EXPECT_EQ(std::vector<uint8_t>(bytes, bytes + 10), std::vector<uint8_t>(10, tag));
  });
}

TEST(KvStorage, SlotsOfOneBlockAreAdjacent) {
  const KvStorage storage({.layer_count = 1,
                           .latent_dim = 6,
                           .block_size = 16,
                           .block_count = 2,
                           .dtype = Dtype::kF32});
  const auto* first = static_cast<const std::byte*>(storage.Row(0, BlockId(1), 0));
  EXPECT_EQ(storage.Row(0, BlockId(1), 5), first + size_t{5} * 24);
}

// Bytes of memory this process holds now.
size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total_pages = 0;
  size_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

// Eight gigabytes are reserved; only rows that are written take memory.
TEST(KvStorage, ReservesWithoutTouching) {
  const size_t before = ResidentBytes();
  ASSERT_GT(before, 0U);
  const KvLayout layout{.layer_count = 64,
                        .latent_dim = 576,
                        .block_size = 16,
                        .block_count = 8'000,
                        .dtype = Dtype::kBf16};
  ASSERT_GT(layout.block_bytes() * layout.block_count, size_t{8} << 30);
  KvStorage storage(layout);
  *static_cast<uint16_t*>(storage.Row(63, BlockId(7'999), 15)) = 7;
  EXPECT_EQ(*static_cast<const uint16_t*>(storage.Row(63, BlockId(7'999), 15)), 7);
  EXPECT_LT(ResidentBytes(), before + (size_t{64} << 20));
}

}  // namespace
}  // namespace switchyard
