#include "libs/model/rope.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/model/model_spec.h"

namespace switchyard {
namespace {

ModelSpec PlainSpec() {
  ModelSpec spec;
  spec.nope_dim = 128;
  spec.rope_dim = 64;
  spec.rope_theta = 10000.0;
  spec.rope_interleaved = false;
  spec.positions_max = 163840;
  return spec;
}

// DeepSeek-V3's published scaling, but for an mscale that differs from mscale_all_dim.
ModelSpec YarnedSpec() {
  ModelSpec spec = PlainSpec();
  spec.yarn = YarnSpec{.factor = 40.0,
                       .original_max_positions = 4096,
                       .beta_fast = 32.0,
                       .beta_slow = 1.0,
                       .mscale = 0.707,
                       .mscale_all_dim = 1.0};
  return spec;
}

TEST(SinCosOf, AgreesWithTheLibraryOverThePositionRange) {
  Rng rng(3);
  for (int i = 0; i < 100'000; ++i) {
    const double x = (static_cast<double>(rng.Unit()) * 2 - 1) * 200'000.0;
    const SinCos value = SinCosOf(x);
    ASSERT_NEAR(value.sin, std::sin(x), 1e-14) << x;
    ASSERT_NEAR(value.cos, std::cos(x), 1e-14) << x;
  }
  EXPECT_EQ(SinCosOf(0.0).sin, 0.0);
  EXPECT_EQ(SinCosOf(0.0).cos, 1.0);
}

TEST(InverseFrequencies, ArePowersOfThetaWithoutScaling) {
  const ModelSpec spec = PlainSpec();
  const std::vector<float> frequencies = InverseFrequencies(spec);
  ASSERT_EQ(frequencies.size(), 32U);
  for (uint32_t i = 0; i < 32; ++i) {
    EXPECT_FLOAT_EQ(frequencies[i],
                    static_cast<float>(std::pow(spec.rope_theta, -2.0 * i / spec.rope_dim)));
  }
  EXPECT_EQ(RopeAttentionFactor(spec), 1.0F);
  EXPECT_FLOAT_EQ(SoftmaxScale(spec), 1.0F / std::sqrt(192.0F));
}

// Values printed by transformers 5.23, DeepseekV3RotaryEmbedding, for the same parameters.
TEST(InverseFrequencies, FollowThePublishedYarn) {
  const std::vector<float> frequencies = InverseFrequencies(YarnedSpec());
  EXPECT_FLOAT_EQ(frequencies[0], 1.0F);
  EXPECT_FLOAT_EQ(frequencies[1], 0.749894202F);
  EXPECT_FLOAT_EQ(frequencies[9], 0.0749894157F);
  EXPECT_FLOAT_EQ(frequencies[10], 0.0562341288F);
  EXPECT_FLOAT_EQ(frequencies[11], 0.0390069261F);
  EXPECT_FLOAT_EQ(frequencies[15], 0.0083345091F);
  EXPECT_FLOAT_EQ(frequencies[20], 0.000790569407F);
  EXPECT_FLOAT_EQ(frequencies[22], 0.00017782794F);
  EXPECT_FLOAT_EQ(frequencies[23], 3.3338034e-05F);
  EXPECT_FLOAT_EQ(frequencies[24], 2.49999994e-05F);
  EXPECT_FLOAT_EQ(frequencies[31], 3.33380353e-06F);
  EXPECT_FLOAT_EQ(RopeAttentionFactor(YarnedSpec()), 0.9210423553F);
  EXPECT_FLOAT_EQ(SoftmaxScale(YarnedSpec()), 0.1352337788F);
}

TEST(RopeTable, RotatesByThePublishedAngles) {
  RopeTable table(YarnedSpec());
  table.Extend(163840);

  struct Case {
    uint32_t position;
    uint32_t pair;
    float cos;
    float sin;
  };

  const Case cases[] = {
      {.position = 1, .pair = 0, .cos = 0.497641355F, .sin = 0.775030434F},
      {.position = 1, .pair = 9, .cos = 0.918453872F, .sin = 0.0690037087F},
      {.position = 1, .pair = 15, .cos = 0.921010375F, .sin = 0.00767634669F},
      {.position = 1, .pair = 31, .cos = 0.921042383F, .sin = 3.07057439e-06F},
      {.position = 777, .pair = 0, .cos = -0.476840407F, .sin = -0.787998915F},
      {.position = 777, .pair = 9, .cos = -0.135191262F, .sin = 0.911066651F},
      {.position = 777, .pair = 15, .cos = 0.903989553F, .sin = 0.176413983F},
      {.position = 777, .pair = 31, .cos = 0.921039283F, .sin = 0.00238583353F},
      {.position = 163839, .pair = 0, .cos = 0.210628256F, .sin = -0.896635294F},
      {.position = 163839, .pair = 9, .cos = -0.77120477F, .sin = 0.503549635F},
      {.position = 163839, .pair = 15, .cos = -0.437986314F, .sin = 0.810238898F},
      {.position = 163839, .pair = 31, .cos = 0.787031591F, .sin = 0.478435367F},
  };
  for (const Case& expected : cases) {
    SCOPED_TRACE(testing::Message() << expected.position << " " << expected.pair);
    std::vector<float> x(64, 0.0F);
    std::vector<float> out(64);
    x[expected.pair] = 1.0F;
    table.Rotate(expected.position, x.data(), out.data());
    // The last digit of a frequency differs between pow() implementations: 1e-7 of the angle.
    const float tolerance = 2e-7F + 2e-7F * static_cast<float>(expected.position);
    EXPECT_NEAR(out[expected.pair], expected.cos, tolerance);
    EXPECT_NEAR(out[expected.pair + 32], expected.sin, tolerance);
  }
}

TEST(RopeTable, InterleavedPairsGiveTheSameAsHalves) {
  ModelSpec interleaved = PlainSpec();
  interleaved.rope_interleaved = true;
  RopeTable halves_table(PlainSpec());
  RopeTable pairs_table(interleaved);
  halves_table.Extend(100);
  pairs_table.Extend(100);
  std::vector<float> halves(64);
  std::vector<float> pairs(64);
  for (uint32_t i = 0; i < 32; ++i) {
    halves[i] = pairs[2 * i] = static_cast<float>(i) - 7.5F;
    halves[i + 32] = pairs[2 * i + 1] = 3.25F - static_cast<float>(i);
  }
  std::vector<float> from_halves(64);
  std::vector<float> from_pairs(64);
  halves_table.Rotate(99, halves.data(), from_halves.data());
  pairs_table.Rotate(99, pairs.data(), from_pairs.data());
  EXPECT_EQ(from_halves, from_pairs);
}

TEST(RopeTable, ScoresDependOnTheDistanceOnly) {
  RopeTable table(PlainSpec());
  table.Extend(1100);
  Rng rng(8);
  std::vector<float> query(64);
  std::vector<float> key(64);
  for (uint32_t i = 0; i < 64; ++i) {
    query[i] = rng.Unit() - 0.5F;
    key[i] = rng.Unit() - 0.5F;
  }
  const auto score = [&](uint32_t query_position, uint32_t key_position) {
    std::vector<float> q(64);
    std::vector<float> k(64);
    table.Rotate(query_position, query.data(), q.data());
    table.Rotate(key_position, key.data(), k.data());
    double sum = 0.0;
    for (size_t i = 0; i < 64; ++i) {
      sum += static_cast<double>(q[i]) * static_cast<double>(k[i]);
    }
    return sum;
  };
  EXPECT_NEAR(score(20, 3), score(1017, 1000), 2e-4);
}

TEST(RopeTable, ExtendingKeepsEarlierPositions) {
  RopeTable grown(YarnedSpec());
  grown.Extend(1);
  grown.Extend(2);
  grown.Extend(1000);
  RopeTable whole(YarnedSpec());
  whole.Extend(1000);
  std::vector<float> x(64, 1.0F);
  for (uint32_t position = 0; position < 1000; ++position) {
    std::vector<float> a(64);
    std::vector<float> b(64);
    grown.Rotate(position, x.data(), a.data());
    whole.Rotate(position, x.data(), b.data());
    ASSERT_EQ(a, b);
  }
}

}  // namespace
}  // namespace switchyard
