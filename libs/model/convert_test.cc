#include "libs/model/convert.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"
#include "libs/model/manifest.h"
#include "libs/model/numerics_id.h"
#include "libs/model/testing/safetensors_writer.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::AllOf;
using testing::HasSubstr;

Checkpoint OpenOrDie(const std::string& dir) {
  auto checkpoint = Checkpoint::Open(dir);
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

void ExpectSame(const PackedMatrix& a, const PackedMatrix& b) {
  EXPECT_EQ(a.format, b.format);
  ASSERT_EQ(a.byte_size(), b.byte_size());
  if (!a.empty()) {
    EXPECT_EQ(std::memcmp(a.data, b.data, a.byte_size()), 0);
  }
}

void ExpectSame(const StoredMatrix& a, const StoredMatrix& b) {
  ASSERT_EQ(a.format, b.format);
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.columns, b.columns);
  EXPECT_EQ(std::memcmp(a.values, b.values, StoredValueBytes(a.format, a.rows, a.columns)), 0);
  ASSERT_EQ(a.scales == nullptr, b.scales == nullptr);
  if (a.scales != nullptr) {
    EXPECT_EQ(std::memcmp(a.scales, b.scales, StoredScaleBytes(a.format, a.rows, a.columns)), 0);
  }
}

void ExpectSame(const ExpertWeights& a, const ExpertWeights& b) {
  ExpectSame(a.gate, b.gate);
  ExpectSame(a.up, b.up);
  ExpectSame(a.down, b.down);
}

// All that decides tokens: weights bit for bit, and the dtypes of rows and cache.
void ExpectLoadsTheSame(const Checkpoint& from, WeightChoice choice, const Checkpoint& converted) {
  EXPECT_EQ(WireRowDtype(from.spec(), choice),
            WireRowDtype(converted.spec(), WeightChoice::kAsStored));
  EXPECT_EQ(from.spec().weight_dtype, converted.spec().weight_dtype);
  const auto a = from.LoadRouterWeights(choice);
  const auto b = converted.LoadRouterWeights();
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  ExpectSame(a->head, b->head);
  ExpectSame(a->embedding, b->embedding);
  for (size_t i = 0; i < a->layers.size(); ++i) {
    EXPECT_EQ(a->layers[i].input_norm, b->layers[i].input_norm);
    ExpectSame(a->layers[i].q_a_proj, b->layers[i].q_a_proj);
    ExpectSame(a->layers[i].kv_a_proj, b->layers[i].kv_a_proj);
    ExpectSame(a->layers[i].o_proj, b->layers[i].o_proj);
    for (size_t head = 0; head < a->layers[i].heads.size(); ++head) {
      ExpectSame(a->layers[i].heads[head].key, b->layers[i].heads[head].key);
      ExpectSame(a->layers[i].heads[head].key_turned, b->layers[i].heads[head].key_turned);
      ExpectSame(a->layers[i].heads[head].value, b->layers[i].heads[head].value);
    }
    ExpectSame(a->layers[i].dense, b->layers[i].dense);
    ExpectSame(a->layers[i].shared, b->layers[i].shared);
  }
  for (uint16_t expert = 0; expert < from.spec().expert_count; ++expert) {
    const auto c = from.LoadExpert(LayerId(2), ExpertId(expert), choice);
    const auto d = converted.LoadExpert(LayerId(2), ExpertId(expert));
    ASSERT_TRUE(c.ok() && d.ok()) << c.status() << d.status();
    ExpectSame(*c, *d);
  }
}

constexpr WeightChoice kChoices[] = {WeightChoice::kBf16, WeightChoice::kInt8, WeightChoice::kInt4};

TEST(ConvertCheckpoint, LoadsToTheSameBitsAsConvertingWhileLoading) {
  TinyCheckpointOptions fused_and_tied;
  fused_and_tied.fused_experts = true;
  fused_and_tied.spec.tied_embeddings = true;
  TinyCheckpointOptions tied = fused_and_tied;
  tied.fused_experts = false;
  tied.spec.weight_dtype = Dtype::kBf16;
  TinyCheckpointOptions odd;
  odd.spec.kv_lora_rank = 40;
  odd.spec.vocab_size = 70;
  odd.spec.expert_intermediate_size = 45;  // No whole group, no whole byte of two codes.
  odd.spec.weight_dtype = Dtype::kBf16;
  odd.file_count = 2;
  for (const TinyCheckpointOptions& options :
       {TinyCheckpointOptions{}, fused_and_tied, tied, odd}) {
    const TinyCheckpoint tiny(options);
    const Checkpoint from = OpenOrDie(tiny.dir());
    for (const WeightChoice choice : kChoices) {
      const TempDir dir;
      const std::string to = dir.path() + "/out";
      const absl::Status done = ConvertCheckpoint(from, to, {.weights = choice, .threads = 2});
      ASSERT_TRUE(done.ok()) << done;
      ExpectLoadsTheSame(from, choice, OpenOrDie(to));
    }
  }
}

TEST(ConvertCheckpoint, ReadsFp8) {
  TinyCheckpointOptions options;
  options.spec.hidden_size = 160;
  const TinyCheckpoint tiny(options);
  const TempDir dir;
  ASSERT_TRUE(RewriteCheckpointAsFp8(tiny.dir(), dir.path(), Fp8Scales::kUe8m0).ok());
  const Checkpoint from = OpenOrDie(dir.path());
  for (const WeightChoice choice : kChoices) {
    const std::string to = fmt::format("{}/{}", dir.path(), NameOf(choice));
    ASSERT_TRUE(ConvertCheckpoint(from, to, {.weights = choice}).ok());
    ExpectLoadsTheSame(from, choice, OpenOrDie(to));
  }
}

std::string DtypeOf(const Checkpoint& checkpoint, const std::string& name) {
  const TensorCatalog::Place place = checkpoint.catalog().Find(name);
  return place.entry == nullptr ? "" : place.entry->dtype;
}

TEST(ConvertCheckpoint, WritesTheFormatsOfTheTable) {
  const TinyCheckpoint tiny;
  const TempDir dir;
  const Checkpoint from = OpenOrDie(tiny.dir());
  ASSERT_TRUE(ConvertCheckpoint(from, dir.path() + "/8", {.weights = WeightChoice::kInt8}).ok());
  ASSERT_TRUE(ConvertCheckpoint(from, dir.path() + "/4", {.weights = WeightChoice::kInt4}).ok());
  const Checkpoint int8 = OpenOrDie(dir.path() + "/8");
  const Checkpoint int4 = OpenOrDie(dir.path() + "/4");
  const std::string layer = "model.layers.1.";
  for (const std::string& name :
       {std::string("model.embed_tokens.weight"), std::string("lm_head.weight"),
        layer + "self_attn.kv_b_proj.weight", std::string("model.layers.0.mlp.up_proj.weight")}) {
    EXPECT_EQ(DtypeOf(int8, name), "I8") << name;
    EXPECT_EQ(DtypeOf(int4, name), "I8") << name;
    EXPECT_EQ(DtypeOf(int4, name + "_scale"), "F16") << name;
  }
  for (const std::string name :
       {"self_attn.o_proj.weight", "self_attn.q_b_proj.weight", "mlp.shared_experts.up_proj.weight",
        "mlp.experts.3.down_proj.weight"}) {
    EXPECT_EQ(DtypeOf(int8, layer + name), "I8") << name;
    EXPECT_EQ(DtypeOf(int4, layer + name), "U8") << name;
  }
  for (const std::string name : {"mlp.gate.weight", "input_layernorm.weight"}) {
    EXPECT_EQ(DtypeOf(int8, layer + name), "F32") << name;
    EXPECT_EQ(DtypeOf(int4, layer + name), "F32") << name;
  }
}

TEST(ConvertCheckpoint, FromOneOfItsOwnFormatsToAnother) {
  TinyCheckpointOptions options;
  options.spec.tied_embeddings = true;
  const TinyCheckpoint tiny(options);
  const TempDir dir;
  ASSERT_TRUE(ConvertCheckpoint(OpenOrDie(tiny.dir()), dir.path() + "/8", {}).ok());
  const Checkpoint int8 = OpenOrDie(dir.path() + "/8");
  for (const WeightChoice choice : kChoices) {
    const std::string to = fmt::format("{}/{}", dir.path(), NameOf(choice));
    const absl::Status done = ConvertCheckpoint(int8, to, {.weights = choice});
    ASSERT_TRUE(done.ok()) << done;
    ExpectLoadsTheSame(int8, choice, OpenOrDie(to));
  }
}

// Rewrites the one file of a checkpoint, each tensor as `change` gives it to the writer.
template <typename Change>
void Rewrite(const std::string& dir, Change change) {
  const std::string path = dir + "/model.safetensors";
  SafetensorsWriter writer;
  {
    const auto file = SafetensorsFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    for (const auto& [name, entry] : file->index()) {
      const std::vector<std::byte> bytes = file->Read(entry).value();
      change(writer, name, entry,
             std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    }
  }
  ASSERT_TRUE(WriteFileAtomically(path, writer.Render()).ok());
}

void CopyTensor(SafetensorsWriter& writer, const std::string& name, const SafetensorsEntry& entry,
                std::string_view bytes) {
  writer.AddRaw(name, entry.shape, entry.dtype, bytes);
}

TEST(ConvertCheckpoint, TakesAllFusedTensorsOfALayerApartOrNone) {
  TinyCheckpointOptions options;
  options.fused_experts = true;
  options.spec.weight_dtype = Dtype::kBf16;
  const TinyCheckpoint tiny(options);
  const std::string odd_one = "model.layers.2.mlp.experts.down_proj";
  Rewrite(tiny.dir(), [&](SafetensorsWriter& writer, const std::string& name,
                          const SafetensorsEntry& entry, std::string_view bytes) {
    if (name != odd_one) {
      CopyTensor(writer, name, entry, bytes);
      return;
    }
    std::vector<float> values(bytes.size() / 2);
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = std::sin(static_cast<float>(i));
    }
    writer.Add(name, entry.shape, Dtype::kF32, values);
  });
  const Checkpoint from = OpenOrDie(tiny.dir());
  for (const WeightChoice choice : kChoices) {
    const TempDir dir;
    const absl::Status done = ConvertCheckpoint(from, dir.path() + "/out", {.weights = choice});
    ASSERT_TRUE(done.ok()) << done;
    const Checkpoint converted = OpenOrDie(dir.path() + "/out");
    ExpectLoadsTheSame(from, choice, converted);
    const bool whole = choice == WeightChoice::kBf16;
    EXPECT_EQ(DtypeOf(converted, "model.layers.1.mlp.experts.gate_up_proj"), whole ? "BF16" : "");
    EXPECT_EQ(DtypeOf(converted, "model.layers.2.mlp.experts.gate_up_proj"), "");
  }
}

TEST(ConvertCheckpoint, RefusesToWriteANameTwice) {
  const TinyCheckpoint tiny;
  const std::string stray = "model.layers.1.mlp.experts.0.up_proj.weight_scale";
  Rewrite(tiny.dir(), [&](SafetensorsWriter& writer, const std::string& name,
                          const SafetensorsEntry& entry, std::string_view bytes) {
    CopyTensor(writer, name, entry, bytes);
    if (name == "lm_head.weight") {
      writer.Add(stray, {1}, Dtype::kF32, {1.0F});
    }
  });
  const TempDir dir;
  const absl::Status done = ConvertCheckpoint(OpenOrDie(tiny.dir()), dir.path() + "/out", {});
  EXPECT_EQ(done.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(done), AllOf(HasSubstr(tiny.dir()), HasSubstr(stray)));
  EXPECT_FALSE(std::filesystem::exists(dir.path() + "/out"));
}

TEST(ConvertCheckpoint, NamesMayHoldWhatJsonEscapes) {
  const TinyCheckpoint tiny;
  Rewrite(tiny.dir(), [&](SafetensorsWriter& writer, const std::string& name,
                          const SafetensorsEntry& entry, std::string_view bytes) {
    CopyTensor(writer, name, entry, bytes);
    if (name == "lm_head.weight") {
      writer.Add(R"(odd\",\"x\\y\n\u0001)", {2}, Dtype::kF32, {1.0F, 2.0F});
    }
  });
  std::string config = ReadFile(tiny.dir() + "/config.json", 1U << 20).value();
  config.insert(config.rfind('}'), R"(, "odd\"key\\": "a\"b")");
  ASSERT_TRUE(WriteFileAtomically(tiny.dir() + "/config.json", config).ok());
  const TempDir dir;
  const Checkpoint from = OpenOrDie(tiny.dir());
  const absl::Status done = ConvertCheckpoint(from, dir.path() + "/out", {});
  ASSERT_TRUE(done.ok()) << done;
  const Checkpoint converted = OpenOrDie(dir.path() + "/out");
  ExpectLoadsTheSame(from, WeightChoice::kInt8, converted);
  EXPECT_EQ(DtypeOf(converted, "odd\",\"x\\y\n\x01"), "F32");
  EXPECT_THAT(ReadFile(dir.path() + "/out/config.json", 1U << 20).value(),
              HasSubstr(R"("odd\"key\\": "a\"b")"));
}

class Converted : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteFileAtomically(tiny_.dir() + "/tokenizer.json", "{}").ok());
    const Checkpoint from = OpenOrDie(tiny_.dir());
    source_digest_ = from.digest();
    const absl::Status done = ConvertCheckpoint(
        from, to_, {.weights = WeightChoice::kInt8, .file_bytes_max = 25'000, .observer = {}});
    ASSERT_TRUE(done.ok()) << done;
  }

  std::string ErrorOfOpen() const { return MessageOf(Checkpoint::Open(to_).status()); }

  // Changes the last byte of a file.
  void Damage(const std::string& name) const {
    std::string text = ReadFile(to_ + "/" + name, 1U << 26).value();
    text.back() = static_cast<char>(text.back() ^ 1);
    ASSERT_TRUE(WriteFileAtomically(to_ + "/" + name, text).ok());
  }

  TinyCheckpoint tiny_;
  TempDir dir_;
  std::string to_ = dir_.path() + "/int8";
  std::string source_digest_;
};

TEST_F(Converted, WritesSmallFilesAManifestAndTheTokenizer) {
  const auto manifest = Manifest::Load(to_);
  ASSERT_TRUE(manifest.ok() && manifest->has_value()) << manifest.status();
  EXPECT_EQ((*manifest)->weights, "int8");
  EXPECT_EQ((*manifest)->source_digest, source_digest_);
  size_t weight_files = 0;
  for (const ManifestFile& file : (*manifest)->files) {
    weight_files += file.name.ends_with(".safetensors") ? 1 : 0;
    EXPECT_LT(file.size, 60'000U) << file.name;
  }
  EXPECT_GT(weight_files, 2U);
  EXPECT_EQ(ReadFile(to_ + "/tokenizer.json", 10).value(), "{}");
  EXPECT_TRUE((*manifest)->Verify(to_, nullptr).ok());
  EXPECT_EQ(OpenOrDie(to_).digest(), (*manifest)->Digest().value());
  EXPECT_FALSE(std::filesystem::exists(to_ + ".partial"));
}

TEST_F(Converted, RefusesToOverwriteUnlessAskedAndThenReplaces) {
  const Checkpoint from = OpenOrDie(tiny_.dir());
  EXPECT_EQ(ConvertCheckpoint(from, to_, {}).code(), absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(ConvertCheckpoint(from, to_, {.weights = WeightChoice::kInt4, .replace = true}).ok());
  EXPECT_EQ(OpenOrDie(to_).spec().quantization, WeightFormat::kInt4);
  EXPECT_FALSE(ConvertCheckpoint(from, tiny_.dir(), {.replace = true}).ok());
  EXPECT_FALSE(ConvertCheckpoint(from, dir_.path(), {.replace = true}).ok());
  EXPECT_TRUE(std::filesystem::exists(tiny_.dir() + "/config.json"));
}

TEST_F(Converted, LeavesASourceAloneThatLiesWhereItWouldWrite) {
  for (const std::string suffix : {".partial", ".before", "/inner"}) {
    const std::string target = dir_.path() + "/target";
    const std::string source = target + suffix;
    std::filesystem::create_directories(source);
    std::filesystem::copy(tiny_.dir(), source);
    EXPECT_FALSE(ConvertCheckpoint(OpenOrDie(source), target, {.replace = true}).ok()) << suffix;
    EXPECT_TRUE(std::filesystem::exists(source + "/config.json")) << suffix;
    std::filesystem::remove_all(source);
    std::filesystem::remove_all(target);
  }
}

TEST_F(Converted, AManifestThatDoesNotFitIsRefusedNamingTheFile) {
  const std::string weights = OpenOrDie(to_).catalog().files().front().path();
  const std::string name = std::filesystem::path(weights).filename().string();
  Damage(name);  // Same size, same header: only a full check sees it.
  EXPECT_EQ(ErrorOfOpen(), "");
  const auto manifest = Manifest::Load(to_);
  const absl::Status verified = (*manifest)->Verify(to_, nullptr);
  EXPECT_EQ(verified.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(MessageOf(verified), AllOf(HasSubstr(name), HasSubstr("SHA-256")));
  std::filesystem::resize_file(weights, std::filesystem::file_size(weights) - 1);
  EXPECT_THAT(ErrorOfOpen(), HasSubstr(name));
}

TEST_F(Converted, AChangedConfigOrHeaderIsRefused) {
  const std::string weights = OpenOrDie(to_).catalog().files().front().path();
  std::string text = ReadFile(weights, 1U << 26).value();
  const size_t at = text.find("model.");
  ASSERT_NE(at, std::string::npos);
  text.replace(at, 6, "modem.");
  const std::string index_path = to_ + "/model.safetensors.index.json";
  ASSERT_TRUE(WriteFileAtomically(weights, text).ok());
  std::string index = ReadFile(index_path, 1U << 26).value();
  const size_t name_end = text.find('"', at);
  const std::string renamed = text.substr(at + 6, name_end - at - 6);
  const size_t in_index = index.find("model." + renamed + "\"");
  ASSERT_NE(in_index, std::string::npos);
  index.replace(in_index, 6, "modem.");
  ASSERT_TRUE(WriteFileAtomically(index_path, index).ok());
  EXPECT_THAT(ErrorOfOpen(), AllOf(HasSubstr(weights), HasSubstr("SHA-256 of the header")));
  Damage("config.json");
  EXPECT_THAT(ErrorOfOpen(), HasSubstr("config.json"));
}

TEST_F(Converted, RefusesBadCodesScalesAndDtypes) {
  const std::string up = "model.layers.1.mlp.experts.0.up_proj.weight";
  std::filesystem::remove(to_ + "/switchyard.manifest.json");
  const auto overwrite = [&](const std::string& tensor, std::string_view bytes) {
    const Checkpoint checkpoint = OpenOrDie(to_);
    const TensorCatalog::Place place = checkpoint.catalog().Find(tensor);
    std::string text = ReadFile(place.file->path(), 1U << 26).value();
    text.replace(place.entry->begin, bytes.size(), bytes);
    ASSERT_TRUE(WriteFileAtomically(place.file->path(), text).ok());
  };
  const auto error = [&] {
    return MessageOf(OpenOrDie(to_).LoadExpert(LayerId(1), ExpertId(0)).status());
  };
  overwrite(up, "\x80");
  EXPECT_THAT(error(), AllOf(HasSubstr("safetensors"), HasSubstr(up), HasSubstr("-128")));
  overwrite(up, "\x7f");
  overwrite(up + "_scale", std::string_view("\x00\x7c", 2));
  EXPECT_THAT(error(), AllOf(HasSubstr("safetensors"), HasSubstr(up), HasSubstr("not finite")));
}

TEST(Manifest, RefusesWhatItDoesNotMean) {
  const auto error = [](const std::string& json) {
    return MessageOf(Manifest::Parse(json).status());
  };
  const std::string hash(64, 'a');
  const auto with = [&](const std::string& name, const std::string& sha256) {
    return R"({"version":1,"weights":"int8","source_digest":"","files":[{"name":")" + name +
           R"(","size":1,"sha256":")" + sha256 + "\"}]}";
  };
  EXPECT_TRUE(Manifest::Parse(with("config.json", hash)).ok());
  EXPECT_THAT(error("["), HasSubstr("JSON"));
  EXPECT_THAT(error("{}"), HasSubstr("version"));
  EXPECT_THAT(error(R"({"version":2})"), HasSubstr("version"));
  EXPECT_THAT(error(with("../config.json", hash)), HasSubstr("plain file name"));
  EXPECT_THAT(error(with("config.json", "abc")), HasSubstr("64 hex digits"));
  EXPECT_THAT(error(with("model.safetensors", hash)), HasSubstr("header_sha256"));
}

}  // namespace
}  // namespace switchyard
