// Quantised checkpoints: what is loaded, and what is refused.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/checkpoint.h"
#include "libs/model/numerics_id.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr LayerId kMoeLayer(1);
constexpr const char* kUp = "model.layers.1.mlp.experts.0.up_proj.weight";

// Ragged in rows and columns: no extent is a multiple of 128, some exceed it.
ModelSpec RaggedSpec() {
  ModelSpec spec = TinyModelSpec();
  spec.hidden_size = 160;
  spec.dense_intermediate_size = 200;
  spec.expert_intermediate_size = 136;
  spec.weight_dtype = Dtype::kF32;
  return spec;
}

// An FP8 checkpoint and the F32 one it was made of.
class Fp8Checkpoint : public testing::TestWithParam<Fp8Scales> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(RewriteCheckpointAsFp8(original_.dir(), dir_.path(), GetParam()).ok());
  }

  Checkpoint Open() const {
    auto checkpoint = Checkpoint::Open(dir_.path());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return *std::move(checkpoint);
  }

  std::string File() const { return dir_.path() + "/model.safetensors"; }

  // Overwrites bytes at `offset` of a tensor.
  void Overwrite(const std::string& tensor, uint64_t offset, std::string_view bytes) const {
    const uint64_t begin = SafetensorsFile::Open(File())->Find(tensor)->begin;
    std::string text = ReadFile(File(), 1U << 26).value();
    text.replace(begin + offset, bytes.size(), bytes);
    ASSERT_TRUE(WriteFileAtomically(File(), text).ok());
  }

  // Replaces text of equal length in the weights file.
  void Patch(const std::string& from, const std::string& to) const {
    std::string text = ReadFile(File(), 1U << 26).value();
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
    ASSERT_TRUE(WriteFileAtomically(File(), text).ok());
  }

  std::string ExpertError() const {
    return MessageOf(Open().LoadExpert(kMoeLayer, ExpertId(0)).status());
  }

  TinyCheckpoint original_{{.spec = RaggedSpec()}};
  TempDir dir_;
};

std::vector<float> ValuesOf(const PackedMatrix& packed) {
  std::vector<float> values(size_t{packed.rows} * packed.columns);
  for (uint32_t row = 0; row < packed.rows; ++row) {
    UnpackRow(packed, row, values.data() + size_t{row} * packed.columns);
  }
  return values;
}

// The largest difference over the largest magnitude.
double RelativeError(const PackedMatrix& expected, const PackedMatrix& actual) {
  const std::vector<float> a = ValuesOf(expected);
  const std::vector<float> b = ValuesOf(actual);
  EXPECT_EQ(a.size(), b.size());
  double worst = 0.0;
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    largest = std::max(largest, std::abs(static_cast<double>(a[i])));
  }
  return worst / largest;
}

// Half a step of three mantissa bits.
constexpr double kFp8Error = 1.0 / 16.0;

TEST_P(Fp8Checkpoint, LoadsWhatWasQuantised) {
  const Checkpoint original = Checkpoint::Open(original_.dir()).value();
  const Checkpoint checkpoint = Open();
  EXPECT_EQ(checkpoint.spec().quantization, WeightFormat::kFp8);
  EXPECT_EQ(WireRowDtype(checkpoint.spec(), WeightChoice::kAsStored), Dtype::kBf16);
  const auto expected = original.LoadExpert(kMoeLayer, ExpertId(2));
  const auto expert = checkpoint.LoadExpert(kMoeLayer, ExpertId(2));
  ASSERT_TRUE(expected.ok() && expert.ok()) << expert.status();
  EXPECT_EQ(expert->gate.format, WeightFormat::kFp8);
  EXPECT_LT(RelativeError(expected->gate, expert->gate), kFp8Error);
  EXPECT_LT(RelativeError(expected->up, expert->up), kFp8Error);
  EXPECT_LT(RelativeError(expected->down, expert->down), kFp8Error);
  const auto router = checkpoint.LoadRouterWeights();
  const auto plain = original.LoadRouterWeights();
  ASSERT_TRUE(router.ok() && plain.ok()) << router.status();
  EXPECT_EQ(router->head.format, WeightFormat::kBf16);
  EXPECT_EQ(router->layers[0].q_b_proj.format, WeightFormat::kFp8);
  EXPECT_LT(RelativeError(plain->layers[0].dense.down, router->layers[0].dense.down), kFp8Error);
  EXPECT_EQ(router->layers[1].heads[3].value.format, WeightFormat::kBf16);
  EXPECT_LT(RelativeError(plain->layers[1].heads[3].value, router->layers[1].heads[3].value),
            kFp8Error);
}

TEST_P(Fp8Checkpoint, GivesOtherFormatsAndSlicesOfAnySizeTheSameValues) {
  const Checkpoint checkpoint = Open();
  const auto fp8 = checkpoint.LoadExpert(kMoeLayer, ExpertId(0), WeightChoice::kAsStored);
  const auto bf16 = checkpoint.LoadExpert(kMoeLayer, ExpertId(0), WeightChoice::kBf16);
  const auto int8 = checkpoint.LoadExpert(kMoeLayer, ExpertId(0), WeightChoice::kInt8);
  ASSERT_TRUE(fp8.ok() && bf16.ok() && int8.ok());
  EXPECT_LT(RelativeError(fp8->down, bf16->down), 1.0 / 256);
  EXPECT_LT(RelativeError(fp8->down, int8->down), 1.0 / 127);
}

TEST_P(Fp8Checkpoint, LoadingWithThreadsGivesTheSameBits) {
  const Checkpoint checkpoint = Open();
  std::vector<ExpertName> names;
  for (uint16_t expert = 0; expert < 8; ++expert) {
    names.push_back({.layer = kMoeLayer, .expert = ExpertId(expert)});
    names.push_back({.layer = LayerId(2), .expert = ExpertId(expert)});
  }
  uint64_t done = 0;
  uint64_t total = 0;
  const auto many = checkpoint.LoadExperts(
      names, WeightChoice::kAsStored, {.threads = 3, .observer = [&](const LoadProgress& progress) {
                                         EXPECT_GE(progress.bytes_done, done);
                                         done = progress.bytes_done;
                                         total = progress.bytes_total;
                                       }});
  ASSERT_TRUE(many.ok()) << many.status();
  EXPECT_GT(total, uint64_t{512} << 10);  // Else no thread is started.
  EXPECT_GE(done + names.size() * 64, total);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto one = checkpoint.LoadExpert(names[i].layer, names[i].expert);
    ASSERT_TRUE(one.ok());
    EXPECT_EQ(std::memcmp(one->down.data, (*many)[i].down.data, one->down.byte_size()), 0);
    EXPECT_EQ(std::memcmp(one->gate.data, (*many)[i].gate.data, one->gate.byte_size()), 0);
  }
}

TEST_P(Fp8Checkpoint, RefusesCodesAndScalesThatAreNotNumbers) {
  for (const char code : {'\x7f', '\xff'}) {
    Overwrite(kUp, 135 * 160, std::string(1, code));
    EXPECT_THAT(ExpertError(),
                AllOf(HasSubstr("model.safetensors"), HasSubstr(kUp), HasSubstr("not a number")));
  }
  Overwrite(kUp, 135 * 160, std::string(1, '\x7e'));
  EXPECT_EQ(ExpertError(), "");
  const std::string scale = std::string(kUp) + "_scale_inv";
  if (GetParam() == Fp8Scales::kUe8m0) {
    Overwrite(scale, 3, "\xff");
    EXPECT_THAT(ExpertError(), AllOf(HasSubstr(kUp), HasSubstr("not finite")));
    return;
  }
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), -1.0F, -0.0F}) {
    Overwrite(scale, 12, {reinterpret_cast<const char*>(&bad), sizeof(bad)});
    EXPECT_THAT(ExpertError(), AllOf(HasSubstr("model.safetensors"), HasSubstr(kUp),
                                     HasSubstr("negative or not finite")));
  }
}

TEST_P(Fp8Checkpoint, RefusesMissingOrMisplacedScales) {
  Patch(std::string(kUp) + "_scale_inv", std::string(kUp) + "_scale_xxx");
  EXPECT_THAT(ExpertError(), AllOf(HasSubstr("model.safetensors"), HasSubstr(kUp),
                                   HasSubstr("there is no tensor")));
  Patch(std::string(kUp) + "_scale_xxx", std::string(kUp) + "_scale_inv");
  const std::string header = std::string("\"") + kUp + "_scale_inv\":{\"dtype\":\"";
  const bool one_byte = GetParam() == Fp8Scales::kUe8m0;
  Patch(header + (one_byte ? "F8_E8M0" : "F32"), header + (one_byte ? "F8_E5M2" : "I32"));
  EXPECT_THAT(ExpertError(), AllOf(HasSubstr(kUp), HasSubstr("scales of fp8 are F32 or F8_E8M0")));
  Patch(header + (one_byte ? "F8_E5M2" : "I32"), header + (one_byte ? "F8_E8M0" : "F32"));
  const std::string shape = header + (one_byte ? "F8_E8M0" : "F32") + "\",\"shape\":";
  Patch(shape + "[2,2]", shape + "[1,4]");
  EXPECT_THAT(ExpertError(), AllOf(HasSubstr("_scale_inv has shape [1, 4]"), HasSubstr("[2, 2]")));
}

TEST_P(Fp8Checkpoint, RefusesFp8WithoutAQuantizationConfig) {
  const std::string path = dir_.path() + "/config.json";
  std::string config = ReadFile(path, 1U << 20).value();
  config.replace(config.find("quantization_config"), 19, "quantization_xonfig");
  ASSERT_TRUE(WriteFileAtomically(path, config).ok());
  EXPECT_THAT(ExpertError(),
              AllOf(HasSubstr("dtype F8_E4M3"), HasSubstr("quantization_config none")));
}

TEST_P(Fp8Checkpoint, NamesTheTensorOfAFileThatChangesOrEndsWhileItIsRead) {
  const Checkpoint checkpoint = Open();
  std::filesystem::last_write_time(File(), std::filesystem::file_time_type(std::chrono::hours(1)));
  const absl::Status changed = checkpoint.LoadExpert(kMoeLayer, ExpertId(0)).status();
  EXPECT_EQ(changed.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(MessageOf(changed), AllOf(HasSubstr("tensor model.layers.1.mlp.experts.0."),
                                        HasSubstr("model.safetensors was changed")));
  std::filesystem::resize_file(File(), 4096);
  EXPECT_THAT(MessageOf(checkpoint.LoadRouterWeights().status()),
              AllOf(HasSubstr("tensor model."), HasSubstr("model.safetensors: ends at byte")));
}

INSTANTIATE_TEST_SUITE_P(Scales, Fp8Checkpoint, testing::Values(Fp8Scales::kF32, Fp8Scales::kUe8m0),
                         [](const testing::TestParamInfo<Fp8Scales>& param) {
                           return param.param == Fp8Scales::kF32 ? "F32" : "Ue8m0";
                         });

TEST(QuantisedCheckpoint, MixedTensorsKeepTheirOwnFormats) {
  const TinyCheckpoint original{{.spec = RaggedSpec()}};
  const TempDir dir;
  ASSERT_TRUE(RewriteCheckpointAsFp8(original.dir(), dir.path(), Fp8Scales::kF32).ok());
  const auto checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok());
  const auto plan = checkpoint->PlanRouter(WeightChoice::kAsStored);
  ASSERT_TRUE(plan.ok()) << plan.status();
  for (const PlannedTensor& tensor : *plan) {
    const bool projection = tensor.source.slice.name.find("_proj") != std::string::npos;
    EXPECT_EQ(tensor.source.format == WeightFormat::kFp8, projection) << tensor.source.slice.name;
  }
}

}  // namespace
}  // namespace switchyard
