#include "libs/model/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <optional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/internal/widen.h"
#include "libs/model/testing/safetensors_writer.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

constexpr LayerId kMoeLayer(1);

Checkpoint OpenOrDie(const std::string& dir) {
  auto checkpoint = Checkpoint::Open(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

// Replaces `from` in a file of the directory; the lengths are equal so that safetensors offsets
// hold.
void Patch(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = ReadFile(path, 1U << 26).value();
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos);
  text.replace(at, from.size(), to);
  ASSERT_TRUE(WriteFileAtomically(path, text).ok());
}

float FirstOf(const PackedMatrix& packed) {
  std::vector<float> row(packed.columns);
  UnpackRow(packed, 0, row.data());
  return row[0];
}

TEST(Checkpoint, GivesEveryTensorOfEachVariant) {
  for (const Dtype dtype : {Dtype::kF32, Dtype::kBf16, Dtype::kF16}) {
    TinyCheckpointOptions options;
    options.spec.weight_dtype = dtype;
    options.spec.attention_bias = true;
    const TinyCheckpoint tiny(options);
    const Checkpoint checkpoint = OpenOrDie(tiny.dir());
    EXPECT_EQ(checkpoint.spec().weight_dtype, dtype);
    const auto weights = checkpoint.LoadRouterWeights();
    ASSERT_TRUE(weights.ok()) << weights.status();
    ASSERT_EQ(weights->layers.size(), 3U);
    EXPECT_EQ(weights->embedding.format, weights->head.format);
    EXPECT_EQ(weights->embedding.scales, nullptr);
    EXPECT_EQ(weights->layers[0].dense.gate.rows, 48U);
    EXPECT_TRUE(weights->layers[0].gate.empty());
    EXPECT_TRUE(weights->layers[1].dense.gate.empty());
    EXPECT_EQ(weights->layers[1].gate.rows, 8U);
    EXPECT_EQ(weights->layers[1].shared.down.columns, 16U);
    EXPECT_EQ(weights->layers[1].q_a_bias.size(), 24U);
    EXPECT_TRUE(weights->layers[1].q_proj.empty());
    const auto expert = checkpoint.LoadExpert(kMoeLayer, ExpertId(7));
    ASSERT_TRUE(expert.ok()) << expert.status();
    EXPECT_EQ(expert->up.rows, 16U);
    EXPECT_EQ(checkpoint.expert_bytes(),
              expert->gate.byte_size() + expert->up.byte_size() + expert->down.byte_size());
    EXPECT_GE(checkpoint.expert_bytes(), 3U * 16 * 32 * BytesOf(dtype));
  }
}

TEST(Checkpoint, TiedHeadIsTheEmbeddingAndPlainQueriesHaveOneMatrix) {
  TinyCheckpointOptions options;
  options.spec.tied_embeddings = true;
  options.spec.q_lora_rank = 0;
  options.spec.shared_expert_count = 0;
  const TinyCheckpoint tiny(options);
  const auto weights = OpenOrDie(tiny.dir()).LoadRouterWeights();
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->head.data, weights->embedding.values);
  EXPECT_EQ(weights->layers[0].q_proj.rows, 80U);
  EXPECT_TRUE(weights->layers[1].shared.gate.empty());
}

std::vector<float> ValuesOf(const PackedMatrix& packed) {
  std::vector<float> values(size_t{packed.rows} * packed.columns);
  for (uint32_t row = 0; row < packed.rows; ++row) {
    UnpackRow(packed, row, values.data() + size_t{row} * packed.columns);
  }
  return values;
}

std::vector<float> WholeTensor(const Checkpoint& checkpoint, const std::string& name) {
  const TensorCatalog::Place place = checkpoint.catalog().Find(name);
  const auto bytes = place.file->Read(*place.entry).value();
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(Checkpoint, FusedExpertsAreTheirRowsOfTheThreeDimensionalTensors) {
  TinyCheckpointOptions options;
  options.fused_experts = true;
  const TinyCheckpoint tiny(options);
  const Checkpoint checkpoint = OpenOrDie(tiny.dir());
  const auto expert = checkpoint.LoadExpert(kMoeLayer, ExpertId(1));
  ASSERT_TRUE(expert.ok()) << expert.status();
  const auto gate_up = WholeTensor(checkpoint, "model.layers.1.mlp.experts.gate_up_proj");
  const auto down = WholeTensor(checkpoint, "model.layers.1.mlp.experts.down_proj");
  const auto part = [](const std::vector<float>& all, size_t index) {
    const auto begin = all.begin() + static_cast<ptrdiff_t>(index * 16 * 32);
    return std::vector<float>(begin, begin + 16 * 32);
  };
  EXPECT_EQ(ValuesOf(expert->gate), part(gate_up, 2));
  EXPECT_EQ(ValuesOf(expert->up), part(gate_up, 3));
  EXPECT_EQ(ValuesOf(expert->down), part(down, 1));
}

TEST(Checkpoint, ShardedFilesGiveTheSameWeights) {
  TinyCheckpointOptions options;
  const TinyCheckpoint single(options);
  options.file_count = 3;
  const TinyCheckpoint sharded(options);
  const auto a = OpenOrDie(single.dir()).LoadRouterWeights();
  const auto b = OpenOrDie(sharded.dir()).LoadRouterWeights();
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(std::memcmp(a->head.data, b->head.data, a->head.byte_size()), 0);
  EXPECT_EQ(a->layers[2].gate_bias, b->layers[2].gate_bias);
}

TEST(Checkpoint, WeightsOutliveTheCheckpoint) {
  std::optional<ExpertWeights> expert;
  {
    const TinyCheckpoint tiny;
    expert = OpenOrDie(tiny.dir()).LoadExpert(kMoeLayer, ExpertId(0)).value();
  }
  EXPECT_LT(std::abs(FirstOf(expert->down)), 10.0F);
}

TEST(Checkpoint, DigestCoversConfigAndWeights) {
  const TinyCheckpoint a;
  const TinyCheckpoint b;
  const std::string digest = OpenOrDie(a.dir()).digest();
  EXPECT_EQ(digest.size(), 64U);
  EXPECT_EQ(digest, OpenOrDie(b.dir()).digest());
  TinyCheckpointOptions options;
  options.seed = 2;
  const TinyCheckpoint c(options);
  EXPECT_NE(digest, OpenOrDie(c.dir()).digest());
  Patch(b.dir() + "/config.json", "\"rope_theta\": 10000", "\"rope_theta\": 10001");
  EXPECT_NE(digest, OpenOrDie(b.dir()).digest());
}

TEST(Checkpoint, MissingTensorIsNamed) {
  const TinyCheckpoint tiny;
  const std::string file = tiny.dir() + "/model.safetensors";
  Patch(file, "model.layers.1.mlp.gate.weight", "model.layers.1.mlp.bate.weight");
  Patch(file, "model.layers.2.mlp.experts.3.up_proj", "model.layers.2.mlp.experts.3.xp_proj");
  const Checkpoint checkpoint = OpenOrDie(tiny.dir());
  EXPECT_THAT(MessageOf(checkpoint.LoadRouterWeights().status()),
              HasSubstr("model.layers.1.mlp.gate.weight is missing"));
  EXPECT_THAT(MessageOf(checkpoint.LoadExpert(LayerId(2), ExpertId(3)).status()),
              HasSubstr("model.layers.2.mlp.experts.3.up_proj.weight is missing"));
}

TEST(Checkpoint, WrongShapeAndDtypeNameTensorAndFile) {
  const TinyCheckpoint tiny;
  const std::string config = tiny.dir() + "/config.json";
  Patch(config, "\"vocab_size\": 64", "\"vocab_size\": 65");
  const auto status = OpenOrDie(tiny.dir()).LoadRouterWeights().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(status),
              HasSubstr("model.safetensors: tensor model.embed_tokens.weight has shape [64, 32]"));
  Patch(config, "\"vocab_size\": 65", "\"vocab_size\": 64");
  Patch(tiny.dir() + "/model.safetensors", "\"F32\"", "\"I32\"");
  EXPECT_THAT(MessageOf(OpenOrDie(tiny.dir()).LoadRouterWeights().status()),
              HasSubstr("dtype I32"));
}

TEST(Checkpoint, RefusesExpertsThatDoNotExist) {
  const TinyCheckpoint tiny;
  const Checkpoint checkpoint = OpenOrDie(tiny.dir());
  EXPECT_FALSE(checkpoint.LoadExpert(LayerId(0), ExpertId(0)).ok());
  EXPECT_FALSE(checkpoint.LoadExpert(LayerId(3), ExpertId(0)).ok());
  EXPECT_FALSE(checkpoint.LoadExpert(LayerId(1), ExpertId(8)).ok());
}

TEST(Checkpoint, RefusesBadIndexFiles) {
  TinyCheckpointOptions options;
  options.file_count = 2;
  const TinyCheckpoint tiny(options);
  const std::string index = tiny.dir() + "/model.safetensors.index.json";
  const std::string good = ReadFile(index, 1U << 20).value();
  const auto error_with = [&](const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(index, text).ok());
    return MessageOf(Checkpoint::Open(tiny.dir()).status());
  };
  EXPECT_THAT(error_with("{"), HasSubstr("weight_map"));
  EXPECT_THAT(error_with(R"({"weight_map":{}})"), HasSubstr("empty"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"../model.safetensors"}})"), HasSubstr("plain"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"/etc/passwd"}})"), HasSubstr("plain"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"none.safetensors"}})"), HasSubstr("no such file"));
  EXPECT_THAT(error_with(R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})"),
              HasSubstr("tensor a is not in"));
  ASSERT_TRUE(WriteFileAtomically(index, good).ok());
  const std::string first = tiny.dir() + "/model-00001-of-00002.safetensors";
  std::filesystem::copy(first, tiny.dir() + "/model-00002-of-00002.safetensors",
                        std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(MessageOf(Checkpoint::Open(tiny.dir()).status()), HasSubstr("and in"));
}

TEST(Checkpoint, MissingDirectoryOrWeightsAreNotFound) {
  EXPECT_EQ(Checkpoint::Open("no/such/dir").status().code(), absl::StatusCode::kNotFound);
  const TinyCheckpoint tiny;
  std::filesystem::remove(tiny.dir() + "/model.safetensors");
  EXPECT_EQ(Checkpoint::Open(tiny.dir()).status().code(), absl::StatusCode::kNotFound);
}

TEST(Checkpoint, OpensTheDemoModel) {
  const Checkpoint checkpoint = OpenOrDie("models/demo");
  EXPECT_TRUE(checkpoint.LoadRouterWeights().ok());
  for (uint16_t layer = 1; layer < 7; ++layer) {
    EXPECT_TRUE(checkpoint.LoadExpert(LayerId(layer), ExpertId(31)).ok());
  }
  EXPECT_GT(checkpoint.total_bytes(), checkpoint.expert_bytes() * 32 * 6);
}

TEST(RewriteCheckpointAsBf16, RoundsWeightsAndKeepsTheCorrectionBias) {
  const TinyCheckpoint tiny;
  const TempDir to;
  ASSERT_TRUE(RewriteCheckpointAsBf16(tiny.dir(), to.path()).ok());
  const auto before = OpenOrDie(tiny.dir()).LoadRouterWeights();
  const Checkpoint rounded = OpenOrDie(to.path());
  const auto after = rounded.LoadRouterWeights();
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_EQ(rounded.spec().weight_dtype, Dtype::kBf16);
  EXPECT_EQ(after->head.format, WeightFormat::kBf16);
  EXPECT_EQ(FirstOf(after->head), Bf16ToF32(F32ToBf16(FirstOf(before->head))));
  EXPECT_EQ(after->layers[1].gate_bias, before->layers[1].gate_bias);
}

TEST(WidenToF32, HalfPrecisionIsExact) {
  EXPECT_EQ(F16ToF32(0x3c00), 1.0F);
  EXPECT_EQ(F16ToF32(0xc000), -2.0F);
  EXPECT_EQ(F16ToF32(0x7bff), 65504.0F);
  EXPECT_EQ(F16ToF32(0x0001), 1.0F / 16777216.0F);
  EXPECT_EQ(F16ToF32(0x7c00), INFINITY);
  EXPECT_TRUE(std::isnan(F16ToF32(0x7e00)));
}

}  // namespace
}  // namespace switchyard
