// The slow reference model against logits of transformers' DeepseekV3ForCausalLM.
#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/model/checkpoint.h"
#include "libs/model/reference_model.h"
#include "libs/model/testing/tiny_checkpoint.h"
#include "tests/conformance/golden.h"

namespace switchyard {
namespace {

// The largest accepted difference of an F32 logit, in standard deviations of the logits.
constexpr double kSigmasMax = 1e-3;

class ModelGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto golden = LoadGolden(GetParam());
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }

  ReferenceModel LoadReference(const std::string& dir) const {
    return ReferenceModel::Load(Checkpoint::Open(dir).value()).value();
  }

  Golden golden_;
};

// Expert choices with each row's sorted, since the order of slots carries no meaning.
std::vector<uint16_t> Sorted(std::vector<uint16_t> experts, uint32_t top_k) {
  for (auto row = experts.begin(); row != experts.end(); row += top_k) {
    std::sort(row, row + top_k);
  }
  return experts;
}

TEST_P(ModelGolden, ReferenceModelMatchesInF32) {
  const ReferenceModel model = LoadReference(golden_.dir);
  const ReferenceOutput output = model.Run(golden_.tokens());
  ASSERT_EQ(output.logits.size(), golden_.logits.size());
  EXPECT_GE(golden_.sigma, 1.0);
  const double tolerance = kSigmasMax * golden_.sigma;
  const LogitDifference difference = CompareLogits(golden_, output.logits, 0, tolerance);
  EXPECT_LE(difference.worst, tolerance);
  EXPECT_EQ(difference.top1_changes, 0U);
  EXPECT_EQ(Sorted(output.experts, model.spec().top_k),
            Sorted(golden_.experts, model.spec().top_k));
}

TEST_P(ModelGolden, ForcedChoiceGivesTheSameLogits) {
  const ReferenceOutput output = LoadReference(golden_.dir).Run(golden_.tokens(), golden_.experts);
  EXPECT_LE(CompareLogits(golden_, output.logits, 0, 1.0).worst, kSigmasMax * golden_.sigma);
}

// Rounding the weights alone, with exact arithmetic, is no worse than the reference's own BF16 run.
TEST_P(ModelGolden, RoundedWeightsStayWithinTheReferencesOwnBf16Error) {
  const TempDir dir;
  ASSERT_TRUE(RewriteCheckpointAsBf16(golden_.dir, dir.path()).ok());
  const ReferenceOutput forced = LoadReference(dir.path()).Run(golden_.tokens(), golden_.experts);
  EXPECT_LE(MeanKl(golden_, forced.logits, 0), golden_.bf16_kl_forced);
}

// Reading codes and scales is exact but for kv_b_proj, which is kept in BF16: that holds every
// value of a code times a power of two, and rounds the others.
class ModelFp8Golden : public ModelGolden {};

TEST_P(ModelFp8Golden, ReferenceModelReadsTheSameWeights) {
  const ReferenceOutput output = LoadReference(golden_.dir).Run(golden_.tokens(), golden_.experts);
  const bool exact = golden_.name == "fp8-ue8m0-scales";
  if (exact) {
    EXPECT_LE(CompareLogits(golden_, output.logits, 0, 1.0).worst, kSigmasMax * golden_.sigma);
  }
  EXPECT_LE(MeanKl(golden_, output.logits, 0), 0.1 * golden_.bf16_kl_forced);
}

std::string TestName(const testing::TestParamInfo<std::string>& param) {
  std::string name = param.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Goldens, ModelGolden, testing::ValuesIn(GoldenNames()), TestName);
INSTANTIATE_TEST_SUITE_P(Goldens, ModelFp8Golden, testing::ValuesIn(Fp8GoldenNames()), TestName);

TEST(Goldens, CoverTheFamily) {
  EXPECT_GE(GoldenNames().size(), 6U);
  EXPECT_GE(Fp8GoldenNames().size(), 2U);
}

}  // namespace
}  // namespace switchyard
