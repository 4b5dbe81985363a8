#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "loadtest/arrival.h"
#include "loadtest/length_distribution.h"
#include "loadtest/random_draws.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

struct Moments {
  double mean = 0.0;
  double variance = 0.0;
};

// Of 200,000 draws: the error of the mean is about deviation / 450.
Moments MomentsOf(const std::function<double()>& draw) {
  constexpr int kDraws = 200'000;
  double sum = 0.0;
  double squares = 0.0;
  for (int i = 0; i < kDraws; ++i) {
    const double value = draw();
    sum += value;
    squares += value * value;
  }
  const double mean = sum / kDraws;
  return {.mean = mean, .variance = squares / kDraws - mean * mean};
}

TEST(RandomDraws, HaveTheirMeansAndVariances) {
  Rng rng(11);
  const Moments unit = MomentsOf([&] { return DrawUnit(rng); });
  EXPECT_NEAR(unit.mean, 0.5, 0.005);
  EXPECT_NEAR(unit.variance, 1.0 / 12.0, 0.002);
  const Moments exponential = MomentsOf([&] { return DrawExponential(rng); });
  EXPECT_NEAR(exponential.mean, 1.0, 0.02);
  EXPECT_NEAR(exponential.variance, 1.0, 0.05);
  const Moments normal = MomentsOf([&] { return DrawNormal(rng); });
  EXPECT_NEAR(normal.mean, 0.0, 0.02);
  EXPECT_NEAR(normal.variance, 1.0, 0.02);
  for (const double shape : {0.25, 1.0, 4.0}) {
    const Moments gamma = MomentsOf([&] { return DrawGamma(rng, shape); });
    EXPECT_NEAR(gamma.mean, shape, 0.03 * shape) << shape;
    EXPECT_NEAR(gamma.variance, shape, 0.1 * shape) << shape;
  }
}

TEST(ArrivalSchedule, KeepsItsRateAndItsBurstiness) {
  const auto gaps = [](ArrivalKind kind, double burstiness) {
    ArrivalSchedule schedule({.kind = kind, .rate_per_s = 50.0, .burstiness = burstiness}, 3);
    double last = 0.0;
    return MomentsOf([&] {
      const double at = schedule.Next();
      const double gap = at - last;
      EXPECT_GE(gap, 0.0);
      last = at;
      return gap;
    });
  };
  const Moments constant = gaps(ArrivalKind::kConstant, 1.0);
  EXPECT_NEAR(constant.mean, 0.02, 1e-6);
  EXPECT_NEAR(constant.variance, 0.0, 1e-8);
  const Moments poisson = gaps(ArrivalKind::kPoisson, 1.0);
  EXPECT_NEAR(poisson.mean, 0.02, 0.0005);
  EXPECT_NEAR(poisson.variance, 0.0004, 0.00002);
  const Moments burst = gaps(ArrivalKind::kBurst, 0.25);
  EXPECT_NEAR(burst.mean, 0.02, 0.0005);
  EXPECT_NEAR(burst.variance, 0.0004 / 0.25, 0.0001);
}

TEST(ArrivalSchedule, IsAFunctionOfItsSeed) {
  ArrivalSchedule one({.rate_per_s = 5.0}, 7);
  ArrivalSchedule same({.rate_per_s = 5.0}, 7);
  ArrivalSchedule other({.rate_per_s = 5.0}, 8);
  const double first = one.Next();
  EXPECT_EQ(first, same.Next());
  EXPECT_NE(first, other.Next());
}

TEST(LengthDistribution, DrawsWhatItSays) {
  Rng rng(5);
  EXPECT_EQ(LengthDistribution::Parse("128")->Draw(rng), 128U);
  EXPECT_EQ(LengthDistribution::Parse("fixed:7")->Draw(rng), 7U);
  const auto uniform = LengthDistribution::Parse("uniform:3:5");
  std::vector<int> seen(8);
  for (int i = 0; i < 3000; ++i) {
    ++seen.at(uniform->Draw(rng));
  }
  EXPECT_THAT(seen, testing::ElementsAre(0, 0, 0, testing::Gt(900), testing::Gt(900),
                                         testing::Gt(900), 0, 0));
  const auto normal = LengthDistribution::Parse("normal:200:20:150:220");
  const auto lognormal = LengthDistribution::Parse("lognormal:5:1");
  const auto exponential = LengthDistribution::Parse("exponential:100");
  EXPECT_NEAR(MomentsOf([&] { return exponential->Draw(rng); }).mean, 100.0, 2.0);
  EXPECT_NEAR(MomentsOf([&] { return lognormal->Draw(rng); }).mean, std::exp(5.5), 5.0);
  for (int i = 0; i < 1000; ++i) {
    const uint32_t length = normal->Draw(rng);
    EXPECT_GE(length, 150U);
    EXPECT_LE(length, 220U);
  }
}

TEST(LengthDistribution, NeverDrawsZeroOrTooMany) {
  Rng rng(6);
  const auto small = LengthDistribution::Parse("normal:0:1");
  const auto huge = LengthDistribution::Parse("lognormal:700:50");
  for (int i = 0; i < 1000; ++i) {
    EXPECT_GE(small->Draw(rng), 1U);
    EXPECT_LE(huge->Draw(rng), LengthDistribution::kTokensMax);
  }
}

TEST(LengthDistribution, RefusesWhatItCannotDraw) {
  for (const char* text :
       {"", "fixed", "fixed:", "0", "1.5", "-3", "12x", "uniform:5", "uniform:5:3", "uniform:0:3",
        "zipf:2:3", "normal:5", "normal:5:1:9", "normal:5:1:9:2", "lognormal:5:nan",
        "fixed:2000000", "uniform:1:2:3:4", "fixed:1:2:3", "lognormal:inf:1"}) {
    EXPECT_FALSE(LengthDistribution::Parse(text).ok()) << text;
  }
  EXPECT_THAT(MessageOf(LengthDistribution::Parse("uniform:5:3").status()), HasSubstr("in order"));
}

}  // namespace
}  // namespace switchyard
