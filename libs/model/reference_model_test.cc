#include "libs/model/reference_model.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

ReferenceModel LoadTiny(const TinyCheckpointOptions& options = {}) {
  const TinyCheckpoint tiny(options);
  return ReferenceModel::Load(Checkpoint::Open(tiny.dir()).value()).value();
}

TEST(ReferenceModel, IsCausal) {
  const ReferenceModel model = LoadTiny();
  const ReferenceOutput whole = model.Run(std::vector<TokenId>{3, 1, 4, 1, 5, 9});
  const ReferenceOutput prefix = model.Run(std::vector<TokenId>{3, 1, 4});
  ASSERT_EQ(whole.logits.size(), 6U * 64);
  ASSERT_EQ(whole.experts.size(), 2U * 6 * 3);
  for (size_t i = 0; i < prefix.logits.size(); ++i) {
    EXPECT_EQ(whole.logits[i], prefix.logits[i]);
  }
  // The same token at another position gives other logits: positions and context matter.
  EXPECT_NE(whole.logits[1 * 64], whole.logits[3 * 64]);
}

TEST(ReferenceModel, ForcingItsOwnChoiceChangesNothing) {
  const ReferenceModel model = LoadTiny();
  const std::vector<TokenId> tokens = {7, 8, 9, 10};
  const ReferenceOutput free = model.Run(tokens);
  const ReferenceOutput forced = model.Run(tokens, free.experts);
  EXPECT_EQ(free.logits, forced.logits);
  std::vector<uint16_t> other = free.experts;
  for (size_t slot = 0; slot < other.size(); slot += 3) {
    other[slot] = 0;
    other[slot + 1] = 1;
    other[slot + 2] = 2;
  }
  EXPECT_NE(model.Run(tokens, other).logits, free.logits);
}

TEST(ReferenceModel, ReadsBothExpertLayoutsAlike) {
  TinyCheckpointOptions options;
  options.fused_experts = true;
  const ReferenceModel model = LoadTiny(options);
  double square = 0;
  const ReferenceOutput output = model.Run(std::vector<TokenId>{1, 2, 3, 4, 5, 6, 7, 8});
  for (const float logit : output.logits) {
    square += static_cast<double>(logit) * static_cast<double>(logit);
  }
  const double sigma = std::sqrt(square / static_cast<double>(output.logits.size()));
  EXPECT_GT(sigma, 0.5);
  EXPECT_LT(sigma, 2.0);
}

TEST(TinyCheckpoint, IsAPureFunctionOfItsOptions) {
  const std::vector<TokenId> tokens = {1, 2, 3};
  EXPECT_EQ(LoadTiny().Run(tokens).logits, LoadTiny().Run(tokens).logits);
  TinyCheckpointOptions other;
  other.seed = 2;
  EXPECT_NE(LoadTiny().Run(tokens).logits, LoadTiny(other).Run(tokens).logits);
}

}  // namespace
}  // namespace switchyard
