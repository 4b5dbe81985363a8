#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "libs/tensor/buffer_pool.h"
#include "libs/tensor/dtype.h"
#include "libs/tensor/tensor_view.h"

namespace switchyard {
namespace {

TEST(Bf16, RoundsToNearestEvenAndKeepsSpecials) {
  EXPECT_EQ(F32ToBf16(1.0F), 0x3f80);
  EXPECT_EQ(F32ToBf16(1.0F + 1.0F / 256), 0x3f80);  // A tie goes to the even neighbour below.
  EXPECT_EQ(F32ToBf16(1.0F + 3.0F / 256), 0x3f82);  // A tie goes to the even neighbour above.
  EXPECT_EQ(F32ToBf16(-std::numeric_limits<float>::infinity()), 0xff80);
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isnan(Bf16ToF32(F32ToBf16(std::bit_cast<float>(0x7f800001U)))));
}

TEST(Bf16, WideningThenRoundingIsTheIdentity) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = Bf16ToF32(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) {
      ASSERT_EQ(F32ToBf16(value), bits);
    }
  }
}

TEST(MatrixView, RowSliceStepsByWholeRows) {
  const std::vector<float> data = {0, 1, 2, 3, 4, 5};
  const MatrixView matrix{.data = data.data(), .dtype = Dtype::kF32, .rows = 3, .columns = 2};
  const MatrixView slice = matrix.RowSlice(1, 2);
  EXPECT_EQ(static_cast<const float*>(slice.data)[0], 2.0F);
  EXPECT_EQ(slice.rows, 2U);
  EXPECT_EQ(slice.byte_size(), 16U);
}

TEST(BufferPool, GivesAtMostItsCountAndReusesReturned) {
  BufferPool pool(100, 2);
  EXPECT_EQ(pool.buffer_bytes(), 128U);
  BufferLease first = pool.TryAcquire();
  BufferLease second = pool.TryAcquire();
  ASSERT_TRUE(first);
  ASSERT_TRUE(second);
  EXPECT_FALSE(pool.TryAcquire());
  const std::byte* data = first.bytes().data();
  { const BufferLease moved = std::move(first); }
  EXPECT_EQ(pool.leased_count(), 1U);
  first = pool.TryAcquire();
  EXPECT_EQ(first.bytes().data(), data);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0U);
}

}  // namespace
}  // namespace switchyard
