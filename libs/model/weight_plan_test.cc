#include "libs/model/weight_plan.h"

#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/checkpoint.h"
#include "libs/model/convert.h"
#include "libs/model/internal/guard_memory.h"
#include "libs/model/internal/widen.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr WeightChoice kChoices[] = {WeightChoice::kAsStored, WeightChoice::kBf16,
                                     WeightChoice::kInt8, WeightChoice::kInt4};

Checkpoint OpenOrDie(const std::string& dir) {
  auto checkpoint = Checkpoint::Open(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

TinyCheckpointOptions OptionsOf(Dtype dtype) {
  TinyCheckpointOptions options;
  options.spec.weight_dtype = dtype;
  return options;
}

TEST(FormatOf, IsThatOfTheTable) {
  constexpr auto kInt8 = WeightFormat::kInt8;
  constexpr auto kInt4 = WeightFormat::kInt4;
  for (const WeightFormat stored : {WeightFormat::kBf16, WeightFormat::kF32, WeightFormat::kFp8}) {
    for (const WeightRole role :
         {WeightRole::kEmbedding, WeightRole::kLatent, WeightRole::kHead, WeightRole::kDense}) {
      EXPECT_EQ(FormatOf(WeightChoice::kInt8, role, stored), kInt8);
      EXPECT_EQ(FormatOf(WeightChoice::kInt4, role, stored), kInt8);
    }
    for (const WeightRole role : {WeightRole::kExpertIn, WeightRole::kExpertOut,
                                  WeightRole::kShared, WeightRole::kAttention}) {
      EXPECT_EQ(FormatOf(WeightChoice::kInt8, role, stored), kInt8);
      EXPECT_EQ(FormatOf(WeightChoice::kInt4, role, stored), kInt4);
      EXPECT_EQ(FormatOf(WeightChoice::kBf16, role, stored), WeightFormat::kBf16);
    }
    for (const WeightChoice choice : kChoices) {
      EXPECT_EQ(FormatOf(choice, WeightRole::kGate, stored), stored);
      EXPECT_EQ(FormatOf(choice, WeightRole::kVector, stored), stored);
    }
  }
  EXPECT_EQ(FormatOf(WeightChoice::kBf16, WeightRole::kEmbedding, WeightFormat::kF32),
            WeightFormat::kF32);
  EXPECT_EQ(FormatOf(WeightChoice::kBf16, WeightRole::kEmbedding, kInt8), WeightFormat::kBf16);
  EXPECT_EQ(FormatOf(WeightChoice::kBf16, WeightRole::kLatent, kInt8), WeightFormat::kBf16);
}

// The two roles that are rounded to INT8 but not multiplied as such.
TEST(WeightPlan, EmbeddingAndLatentProjectionTakeTheValuesOfInt8) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16}) {
    for (const bool tied : {false, true}) {
      TinyCheckpointOptions options = OptionsOf(dtype);
      options.spec.tied_embeddings = tied;
      const TinyCheckpoint tiny(options);
      const Checkpoint checkpoint = OpenOrDie(tiny.dir());
      const auto exact = checkpoint.LoadRouterWeights();
      const auto weights = checkpoint.LoadRouterWeights(WeightChoice::kInt8);
      ASSERT_TRUE(exact.ok() && weights.ok()) << exact.status() << weights.status();
      const StoredMatrix& embedding = weights->embedding;
      EXPECT_EQ(embedding.format, WeightFormat::kInt8);
      std::vector<float> before(embedding.columns);
      std::vector<float> after(embedding.columns);
      std::vector<float> quantised(embedding.columns);
      for (uint32_t row = 0; row < embedding.rows; ++row) {
        internal::WidenRow(exact->embedding, row, before.data());
        internal::WidenRow(embedding, row, after.data());
        const QuantizedRows q = Quantize(WeightFormat::kInt8, before.data(), 1, embedding.columns);
        UnpackStored({.values = q.values.data(),
                      .format = WeightFormat::kInt8,
                      .rows = 1,
                      .columns = embedding.columns,
                      .scales = q.scales.data()},
                     0, 1, quantised.data());
        EXPECT_EQ(after, quantised);
        if (tied) {
          UnpackRow(weights->head, row, quantised.data());
          EXPECT_EQ(after, quantised);
        }
      }
      const MlaHeadWeights& head = weights->layers[1].heads[2];
      EXPECT_EQ(head.key.format, WeightFormat::kBf16);
      std::vector<float> key(head.key.columns);
      UnpackRow(exact->layers[1].heads[2].key, 3, key.data());
      const QuantizedRows q = Quantize(WeightFormat::kInt8, key.data(), 1, head.key.columns);
      std::vector<float> rounded(key.size());
      UnpackRow(head.key, 3, rounded.data());
      for (size_t k = 0; k < key.size(); ++k) {
        const float code = static_cast<float>(static_cast<int8_t>(q.values[k]));
        EXPECT_EQ(rounded[k], Bf16ToF32(F32ToBf16(code * F16ToF32(q.scales[k / kScaleGroup]))));
      }
      std::vector<float> turned(head.key_turned.columns);
      UnpackRow(head.key_turned, 5, turned.data());
      EXPECT_EQ(turned[3], rounded[5]);
    }
  }
}

TEST(WeightPlan, CountsWhatIsInMemoryAndNamesWhatIsWritten) {
  const TinyCheckpoint tiny(OptionsOf(Dtype::kBf16));
  const Checkpoint checkpoint = OpenOrDie(tiny.dir());
  const auto planned = checkpoint.PlanRouter(WeightChoice::kInt8);
  ASSERT_TRUE(planned.ok()) << planned.status();
  for (const PlannedTensor& tensor : *planned) {
    const TensorSlice& slice = tensor.source.slice;
    if (tensor.source.role == WeightRole::kEmbedding) {
      EXPECT_EQ(tensor.kept, WeightFormat::kInt8);
      EXPECT_EQ(tensor.kept_bytes, StoredValueBytes(tensor.kept, slice.rows, slice.columns) +
                                       StoredScaleBytes(tensor.kept, slice.rows, slice.columns));
    }
    if (tensor.source.role == WeightRole::kLatent) {
      EXPECT_EQ(tensor.rounded, WeightFormat::kInt8);
      EXPECT_EQ(tensor.kept, WeightFormat::kBf16);
      EXPECT_GE(tensor.kept_bytes, uint64_t{slice.rows} * slice.columns * 2);
    }
  }
}

// Overwrites the first value of a tensor.
void Poke(const std::string& dir, const std::string& tensor, float value) {
  const std::string path = dir + "/model.safetensors";
  std::string text = ReadFile(path, 1U << 26).value();
  {
    const auto file = SafetensorsFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    const SafetensorsEntry& entry = *file->Find(tensor);
    const uint16_t half = entry.dtype == "F16" ? F32ToF16(value) : F32ToBf16(value);
    const bool wide = entry.dtype == "F32";
    text.replace(
        entry.begin, wide ? sizeof(value) : sizeof(half),
        wide ? reinterpret_cast<const char*>(&value) : reinterpret_cast<const char*>(&half),
        wide ? sizeof(value) : sizeof(half));
  }
  ASSERT_TRUE(WriteFileAtomically(path, text).ok());
}

// Errors of loading and of converting, which must agree.
void ExpectRefused(const std::string& dir, WeightChoice choice, const std::string& tensor,
                   const std::string& reason) {
  const Checkpoint checkpoint = OpenOrDie(dir);
  absl::Status loaded = checkpoint.LoadRouterWeights(choice).status();
  if (loaded.ok()) {
    loaded = checkpoint.LoadExpert(LayerId(1), ExpertId(0), choice).status();
  }
  EXPECT_EQ(loaded.code(), absl::StatusCode::kInvalidArgument);
  const auto says = AllOf(HasSubstr("model.safetensors"), HasSubstr(tensor), HasSubstr(reason));
  EXPECT_THAT(MessageOf(loaded), says);
  if (choice != WeightChoice::kAsStored) {
    const TempDir out;
    EXPECT_THAT(MessageOf(ConvertCheckpoint(checkpoint, out.path() + "/out", {.weights = choice})),
                says);
  }
}

TEST(WeightPlan, RefusesValuesThatAreNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    for (const std::string tensor :
         {"model.embed_tokens.weight", "model.layers.1.self_attn.kv_b_proj.weight",
          "model.layers.1.mlp.experts.0.up_proj.weight", "lm_head.weight"}) {
      const TinyCheckpoint tiny(OptionsOf(dtype));
      Poke(tiny.dir(), tensor, std::nanf(""));
      ExpectRefused(tiny.dir(), WeightChoice::kInt8, tensor, "not finite");
      Poke(tiny.dir(), tensor, infinity);
      ExpectRefused(tiny.dir(), WeightChoice::kInt4, tensor, "not finite");
      Poke(tiny.dir(), tensor, -infinity);
      ExpectRefused(tiny.dir(), WeightChoice::kAsStored, tensor, "not finite");
    }
  }
}

TEST(WeightPlan, RefusesValuesThatTheFormatCannotHold) {
  const std::string tensor = "model.layers.1.mlp.experts.0.down_proj.weight";
  const TinyCheckpoint tiny;
  Poke(tiny.dir(), tensor, -5e6F);
  ExpectRefused(tiny.dir(), WeightChoice::kInt8, tensor, "too large for int8");
  ExpectRefused(tiny.dir(), WeightChoice::kInt4, tensor, "too large for int4");
  EXPECT_TRUE(OpenOrDie(tiny.dir()).LoadExpert(LayerId(1), ExpertId(0), WeightChoice::kBf16).ok());
  Poke(tiny.dir(), tensor, 3.4e38F);
  ExpectRefused(tiny.dir(), WeightChoice::kBf16, tensor, "too large for bf16");
  EXPECT_TRUE(OpenOrDie(tiny.dir()).LoadExpert(LayerId(1), ExpertId(0)).ok());
  Poke(tiny.dir(), tensor, 4e6F);
  for (const WeightChoice choice : {WeightChoice::kInt8, WeightChoice::kInt4}) {
    const auto expert = OpenOrDie(tiny.dir()).LoadExpert(LayerId(1), ExpertId(0), choice);
    ASSERT_TRUE(expert.ok()) << expert.status();
    std::vector<float> row(expert->down.columns);
    UnpackRow(expert->down, 0, row.data());
    EXPECT_NEAR(row[0], 4e6F, 4e4F);
  }
}

TEST(GuardMemory, TurnsExceptionsOfTheLibraryIntoAStatusThatNamesTheTensor) {
  const absl::Status refused =
      internal::GuardMemory("tensor x", []() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(MessageOf(refused), HasSubstr("tensor x"));
  std::vector<float> values;
  const absl::Status too_long = internal::GuardMemory("tensor y", [&values] {
    values.reserve(values.max_size() + 1);
    return absl::OkStatus();
  });
  EXPECT_EQ(too_long.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(internal::GuardMemory("z", [] { return absl::OkStatus(); }).ok());
}

}  // namespace
}  // namespace switchyard
