// The fast path (engine, dispatch, shards, paged cache, both forms of attention) against logits of
// the reference implementation.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "libs/base/log.h"
#include "libs/engine/engine_loop.h"
#include "libs/engine/testing/inproc_cluster.h"
#include "libs/model/convert.h"
#include "libs/model/testing/tiny_checkpoint.h"
#include "tests/conformance/golden.h"

namespace switchyard {
namespace {

// The largest accepted difference of an F32 logit, in standard deviations of the logits.
constexpr double kSigmasMax = 1e-3;

// The accepted mean KL divergence of a BF16 run, in those of the reference's own BF16 run.
constexpr double kBf16KlMax = 2.0;

const RequestId kRequest(1);

struct GoldenRun {
  std::string model_dir;
  Dtype cache_dtype = Dtype::kF32;
  uint32_t chunk_tokens_max = 512;
  bool forced_experts = false;
  WeightChoice weights = WeightChoice::kAsStored;
};

// Writes the experts that the reference chose for a row.
ForcedExperts ChoiceOf(const Golden& golden, const ModelSpec& spec) {
  return [&golden, &spec](LayerId layer, const RowOrigin& row, std::span<uint16_t> experts) {
    const size_t moe_layer = layer.value() - spec.first_moe_layer;
    const size_t first = (moe_layer * golden.tokens().size() + row.position) * spec.top_k;
    std::copy_n(golden.experts.begin() + static_cast<ptrdiff_t>(first), spec.top_k,
                experts.begin());
  };
}

// Logits of all positions of prompt and continuation, the continuation in the absorbed form.
std::vector<float> LogitsOf(const Golden& golden, const GoldenRun& run) {
  InprocCluster cluster({.model_dir = run.model_dir, .shard_count = 2, .weights = run.weights});
  std::vector<float> logits(golden.logits.size());
  EngineOptions options;
  options.scheduler.chunk_tokens_max = run.chunk_tokens_max;
  options.cache_dtype = run.cache_dtype;
  options.cache_blocks = 64;
  options.logits_observer = [&](const RowOrigin& row, std::span<const float> values) {
    const size_t first = size_t{row.position} * golden.vocab_size;
    ASSERT_LE(first + values.size(), logits.size());
    std::copy(values.begin(), values.end(), logits.begin() + static_cast<ptrdiff_t>(first));
  };
  if (run.forced_experts) {
    options.forced_experts = ChoiceOf(golden, cluster.checkpoint().spec());
  }
  EngineLoop& engine = cluster.StartEngine(options);
  // The continuation is given, so that one different choice does not change what follows; one more
  // token is drawn and not looked at.
  const absl::Status posted =
      engine.Post({.id = kRequest,
                   .prompt = golden.prompt,
                   .resumed = golden.decoded,
                   .max_tokens = static_cast<uint32_t>(golden.decoded.size()) + 1});
  EXPECT_TRUE(posted.ok()) << posted;
  EXPECT_TRUE(cluster.RunUntilIdle());
  for (const GenerationEnd& end : cluster.sink().Of(kRequest).ends) {
    EXPECT_TRUE(end.status.ok()) << end.status;
  }
  return logits;
}

// Of our BF16 run from the reference's F32 run.
double Bf16Kl(const Golden& golden, bool forced_experts) {
  const TempDir dir;
  EXPECT_TRUE(RewriteCheckpointAsBf16(golden.dir, dir.path()).ok());
  return MeanKl(golden,
                LogitsOf(golden, {.model_dir = dir.path(),
                                  .cache_dtype = Dtype::kBf16,
                                  .forced_experts = forced_experts}),
                0);
}

class EngineGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto golden = LoadGolden(GetParam());
    ASSERT_TRUE(golden.ok()) << golden.status();
    golden_ = *std::move(golden);
  }

  void ExpectMatchesInF32(const GoldenRun& run) {
    const double tolerance = kSigmasMax * golden_.sigma;
    const LogitDifference difference = CompareLogits(golden_, LogitsOf(golden_, run), 0, tolerance);
    EXPECT_LE(difference.worst, tolerance);
    EXPECT_EQ(difference.top1_changes, 0U);
    RecordProperty("worst_sigmas", std::to_string(difference.worst / golden_.sigma));
  }

  Golden golden_;
};

TEST_P(EngineGolden, MatchesInF32) { ExpectMatchesInF32({.model_dir = golden_.dir}); }

TEST_P(EngineGolden, MatchesInF32WithSmallChunksAndForcedExperts) {
  ExpectMatchesInF32({.model_dir = golden_.dir, .chunk_tokens_max = 7, .forced_experts = true});
}

TEST_P(EngineGolden, DecodesTheReferencesContinuation) {
  InprocCluster cluster({.model_dir = golden_.dir, .shard_count = 2});
  EngineOptions options;
  options.cache_dtype = Dtype::kF32;
  options.cache_blocks = 64;
  EngineLoop& engine = cluster.StartEngine(options);
  const absl::Status posted =
      engine.Post({.id = kRequest,
                   .prompt = golden_.prompt,
                   .sampling = {.temperature = 0.0F},
                   .max_tokens = static_cast<uint32_t>(golden_.decoded.size())});
  ASSERT_TRUE(posted.ok()) << posted;
  ASSERT_TRUE(cluster.RunUntilIdle());
  EXPECT_EQ(cluster.sink().Of(kRequest).ids(), golden_.decoded);
}

TEST_P(EngineGolden, Bf16IsAsCloseAsTheReferencesOwnBf16RunWithForcedExperts) {
  EXPECT_LE(Bf16Kl(golden_, true), kBf16KlMax * golden_.bf16_kl_forced);
}

// With a free choice the divergence comes from the few positions where the gate is nearly tied and
// takes another expert. Which ones flip is chance in either run: in "unnormalised" none does in the
// reference's, while exact arithmetic on the same rounded weights flips two, as ours does. So all
// goldens but that one must hold by themselves, and the means over all of them, with it, together.
TEST(EngineGoldens, Bf16IsAsCloseAsTheReferencesOwnBf16Run) {
  const std::string flips_in_exact_arithmetic = "unnormalised";
  double ours = 0.0;
  double reference = 0.0;
  size_t alone_count = 0;
  for (const std::string& name : GoldenNames()) {
    const absl::StatusOr<Golden> golden = LoadGolden(name);
    ASSERT_TRUE(golden.ok()) << golden.status();
    const double kl = Bf16Kl(*golden, false);
    SY_LOG_INFO("bf16 golden={} kl_ours={} kl_reference={}", name, kl, golden->bf16_kl_free);
    if (name != flips_in_exact_arithmetic) {
      EXPECT_LE(kl, kBf16KlMax * golden->bf16_kl_free) << name;
      ++alone_count;
    }
    ours += kl;
    reference += golden->bf16_kl_free;
  }
  EXPECT_LE(ours, kBf16KlMax * reference);
  EXPECT_GE(alone_count, 6U);
}

// FP8 weights as they are stored: their products with BF16 activations are at least as good as the
// reference's BF16 run, which rounds the same weights.
class EngineFp8Golden : public EngineGolden {
 protected:
  double Kl(bool forced_experts) const {
    return MeanKl(golden_,
                  LogitsOf(golden_, {.model_dir = golden_.dir,
                                     .cache_dtype = Dtype::kBf16,
                                     .forced_experts = forced_experts}),
                  0);
  }
};

TEST_P(EngineFp8Golden, IsAsCloseAsTheReferencesOwnBf16RunWithForcedExperts) {
  const double kl = Kl(true);
  SY_LOG_INFO("fp8 golden={} kl_ours={} kl_reference={}", golden_.name, kl, golden_.bf16_kl_forced);
  EXPECT_LE(kl, kBf16KlMax * golden_.bf16_kl_forced);
}

TEST_P(EngineFp8Golden, IsAsCloseAsTheReferencesOwnBf16Run) {
  EXPECT_LE(Kl(false), kBf16KlMax * golden_.bf16_kl_free);
}

// Weights converted to a file and weights converted while they load are the same weights.
TEST_P(EngineFp8Golden, ConvertedDirectoriesGiveTheSameLogitsBitForBit) {
  const Checkpoint from = Checkpoint::Open(golden_.dir).value();
  for (const WeightChoice choice :
       {WeightChoice::kBf16, WeightChoice::kInt8, WeightChoice::kInt4}) {
    const TempDir dir;
    const std::string to = dir.path() + "/converted";
    const absl::Status converted = ConvertCheckpoint(from, to, {.weights = choice});
    ASSERT_TRUE(converted.ok()) << converted;
    EXPECT_EQ(LogitsOf(golden_,
                       {.model_dir = golden_.dir, .cache_dtype = Dtype::kBf16, .weights = choice}),
              LogitsOf(golden_, {.model_dir = to, .cache_dtype = Dtype::kBf16}))
        << NameOf(choice);
  }
}

std::string TestName(const testing::TestParamInfo<std::string>& param) {
  std::string name = param.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Goldens, EngineGolden, testing::ValuesIn(GoldenNames()), TestName);
INSTANTIATE_TEST_SUITE_P(Goldens, EngineFp8Golden, testing::ValuesIn(Fp8GoldenNames()), TestName);

TEST(EngineGoldens, CoverBothKindsOfFp8Scales) { EXPECT_EQ(Fp8GoldenNames().size(), 2U); }

}  // namespace
}  // namespace switchyard
