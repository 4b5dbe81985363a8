#include "libs/experts/expert_bank.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "libs/base/status.h"
#include "libs/experts/load_counter.h"

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr ExpertShape kShape = {.first_moe_layer = 1, .layer_count = 3, .expert_count = 4};

std::shared_ptr<ExpertWeights> Weights(uint32_t intermediate, uint32_t hidden) {
  return std::make_shared<ExpertWeights>(
      ExpertWeights{.gate = {.rows = intermediate, .columns = hidden},
                    .up = {.rows = intermediate, .columns = hidden},
                    .down = {.rows = hidden, .columns = intermediate},
                    .owner = nullptr});
}

TEST(ExpertBank, LoadsFindsReplacesAndDrops) {
  ExpertBank bank(kShape);
  const std::shared_ptr<ExpertWeights> first = Weights(8, 4);
  const std::shared_ptr<ExpertWeights> second = Weights(8, 4);
  ASSERT_TRUE(bank.Load(LayerId(1), ExpertId(3), first).ok());
  ASSERT_TRUE(bank.Load(LayerId(2), ExpertId(0), first).ok());
  EXPECT_EQ(bank.resident_count(), 2U);
  EXPECT_EQ(bank.Find(LayerId(1), ExpertId(3)), first);
  EXPECT_EQ(bank.Find(LayerId(2), ExpertId(3)), nullptr);
  ASSERT_TRUE(bank.Load(LayerId(1), ExpertId(3), second).ok());
  EXPECT_EQ(bank.Find(LayerId(1), ExpertId(3)), second);
  bank.Drop(LayerId(1), ExpertId(3));
  EXPECT_EQ(bank.Find(LayerId(1), ExpertId(3)), nullptr);
  EXPECT_EQ(bank.resident_count(), 1U);
}

TEST(ExpertBank, RefusesWhatIsOutsideOrDoesNotFit) {
  ExpertBank bank(kShape);
  for (const auto& [layer, expert] :
       std::vector<std::pair<uint16_t, uint16_t>>{{0, 0}, {3, 0}, {1, 4}}) {
    EXPECT_EQ(bank.Load(LayerId(layer), ExpertId(expert), Weights(8, 4)).code(),
              absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(bank.Find(LayerId(layer), ExpertId(expert)), nullptr);
    bank.Drop(LayerId(layer), ExpertId(expert));
  }
  const std::shared_ptr<ExpertWeights> skewed = Weights(8, 4);
  skewed->down.columns = 7;
  EXPECT_THAT(MessageOf(bank.Load(LayerId(1), ExpertId(0), skewed)), HasSubstr("down 4x7"));
}

TEST(LoadCounter, CountsPerLayerAndExpert) {
  LoadCounter load(kShape);
  load.Add(LayerId(2), ExpertId(1), 5);
  load.Add(LayerId(2), ExpertId(1), 7);
  EXPECT_EQ(load.Of(LayerId(2), ExpertId(1)), (ExpertLoad{.rows = 12, .activations = 2}));
  EXPECT_EQ(load.Of(LayerId(1), ExpertId(1)), (ExpertLoad{}));
}

}  // namespace
}  // namespace switchyard
