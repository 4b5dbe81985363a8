#include "libs/model/safetensors.h"

#include <chrono>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>

#include <sys/stat.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/model/model_spec.h"
#include "libs/model/testing/safetensors_writer.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {
namespace {

using testing::HasSubstr;

absl::StatusOr<SafetensorsIndex> Parse(const std::string& file) {
  return ParseSafetensors(std::as_bytes(std::span(file)));
}

std::string ErrorOf(const std::string& header, const std::string& data) {
  const auto index = Parse(SafetensorsBytes(header, data));
  EXPECT_EQ(index.status().code(), absl::StatusCode::kInvalidArgument);
  return MessageOf(index.status());
}

TEST(Safetensors, ReadsWhatTheWriterWrites) {
  SafetensorsWriter writer;
  writer.Add("a", {2, 3}, Dtype::kF32, {1, 2, 3, 4, 5, 6});
  writer.Add("b", {2}, Dtype::kBf16, {0.5F, -2});
  writer.Add("empty", {0, 7}, Dtype::kF16, {});
  const std::string file = writer.Render();
  const auto index = Parse(file);
  ASSERT_TRUE(index.ok()) << index.status();
  ASSERT_EQ(index->size(), 3U);
  const SafetensorsEntry& a = index->at("a");
  EXPECT_EQ(a.dtype, "F32");
  EXPECT_THAT(a.shape, testing::ElementsAre(2U, 3U));
  float last = 0;
  std::memcpy(&last, file.data() + a.end - 4, 4);
  EXPECT_EQ(last, 6.0F);
  EXPECT_EQ(index->at("b").end, file.size());
  EXPECT_EQ(index->at("empty").byte_size(), 0U);
}

TEST(Safetensors, AcceptsMetadataAndTrailingSpaces) {
  const auto index = Parse(SafetensorsBytes(
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}   )",
      "x"));
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->size(), 1U);
}

TEST(Safetensors, RefusesBadHeaderLengths) {
  EXPECT_FALSE(Parse("").ok());
  EXPECT_FALSE(Parse("1234567").ok());
  EXPECT_FALSE(Parse(std::string(8, '\0')).ok());
  EXPECT_FALSE(Parse(std::string("\x03\0\0\0\0\0\0\0{}", 10)).ok());
  EXPECT_FALSE(Parse(std::string(8, '\xff') + "{}").ok());
  EXPECT_THAT(MessageOf(Parse(std::string("\0\0\0\x10\0\0\0\0{}", 10)).status()),
              HasSubstr("100000000"));
}

TEST(Safetensors, RefusesMalformedJson) {
  EXPECT_THAT(ErrorOf("{", ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf("[]", ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf(R"({"a":1})", ""), HasSubstr("tensor a: is not an object"));
  EXPECT_THAT(ErrorOf(R"({"__metadata__":{"a":1}})", ""), HasSubstr("__metadata__"));
  EXPECT_THAT(ErrorOf(R"({"__metadata__":{},"__metadata__":{}})", ""), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf(std::string(5000, '['), ""), HasSubstr("not a JSON object"));
  EXPECT_THAT(ErrorOf(R"({"a":[[[[[[[[[[[[1]]]]]]]]]]]]})", ""), HasSubstr("not a JSON object"));
}

TEST(Safetensors, RefusesBadEntriesAndNamesTheTensor) {
  const auto error = [](const std::string& fields) {
    return ErrorOf("{\"w\":{" + fields + "}}", "12345678");
  };
  EXPECT_THAT(error(R"("dtype":"F32","shape":[2])"), HasSubstr("tensor w: lacks"));
  EXPECT_THAT(error(R"("dtype":"F31","shape":[2],"data_offsets":[0,8])"),
              HasSubstr("'F31' is unknown"));
  EXPECT_THAT(error(R"("dtype":3,"shape":[2],"data_offsets":[0,8])"), HasSubstr("dtype"));
  EXPECT_THAT(error(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"),
              HasSubstr("twice"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"),
              HasSubstr("'more'"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), HasSubstr("shape"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), HasSubstr("shape"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"),
              HasSubstr("more than 8"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), HasSubstr("data_offsets"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), HasSubstr("reversed"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[3],"data_offsets":[0,12])"), HasSubstr("beyond"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"),
              HasSubstr("need 4 bytes"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,8])"),
              HasSubstr("overflows"));
  EXPECT_THAT(error(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"),
              HasSubstr("overflows"));
  EXPECT_THAT(error(R"("dtype":"F4","shape":[3],"data_offsets":[0,1])"), HasSubstr("whole bytes"));
}

TEST(Safetensors, RefusesRangesThatDoNotTileTheData) {
  const auto two = [](const std::string& first, const std::string& second) {
    return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
  };
  EXPECT_TRUE(Parse(SafetensorsBytes(two("[4,8]", "[0,4]"), "12345678")).ok());
  EXPECT_THAT(ErrorOf(two("[0,4]", "[0,4]"), "1234"), HasSubstr("overlap"));
  EXPECT_THAT(ErrorOf(two("[0,4]", "[2,6]"), "123456"), HasSubstr("overlap"));
  EXPECT_THAT(ErrorOf(two("[0,4]", "[5,9]"), "123456789"), HasSubstr("gap"));
  EXPECT_THAT(ErrorOf(two("[1,5]", "[5,9]"), "123456789"), HasSubstr("gap"));
  EXPECT_THAT(ErrorOf(two("[0,4]", "[4,8]"), "123456789"), HasSubstr("1 bytes of data"));
}

TEST(Safetensors, RefusesANameGivenTwice) {
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                      R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                      "12"),
              HasSubstr("tensor a: given twice"));
}

TEST(Safetensors, TruncatedAndDamagedFilesNeverEscapeTheirBounds) {
  SafetensorsWriter writer;
  writer.Add("model.norm.weight", {4}, Dtype::kF32, {1, 2, 3, 4});
  writer.Add("lm_head.weight", {2, 2}, Dtype::kBf16, {1, 2, 3, 4});
  const std::string file = writer.Render();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(Parse(file.substr(0, size)).ok()) << "cut to " << size;
  }
  Rng rng(7);
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = file;
    damaged[rng.Below(damaged.size())] = static_cast<char>(rng.Next());
    const auto index = Parse(damaged);
    if (index.ok()) {
      for (const auto& [name, entry] : *index) {
        ASSERT_LE(entry.end, damaged.size());
      }
    }
  }
}

TEST(SafetensorsFile, ErrorsNameTheFile) {
  const TempDir dir;
  const std::string path = dir.path() + "/broken.safetensors";
  ASSERT_TRUE(WriteFileAtomically(path, "nonsense").ok());
  EXPECT_THAT(MessageOf(SafetensorsFile::Open(path).status()), HasSubstr("broken.safetensors"));
  EXPECT_EQ(SafetensorsFile::Open(path + "x").status().code(), absl::StatusCode::kNotFound);
}

TEST(SafetensorsFile, FindsTensorsAndTheirBytes) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.Add("a", {1}, Dtype::kBf16, {1.0F});
  const std::string path = dir.path() + "/ok.safetensors";
  ASSERT_TRUE(WriteFileAtomically(path, writer.Render()).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Find("b"), nullptr);
  ASSERT_NE(file->Find("a"), nullptr);
  const auto bytes = file->Read(*file->Find("a"));
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_THAT(*bytes, testing::ElementsAre(std::byte{0x80}, std::byte{0x3f}));
  EXPECT_EQ(file->header().size() + 2, file->file().size());
}

TEST(SafetensorsFile, RefusesANamedPipeWithoutWaitingForAWriter) {
  const TempDir dir;
  const std::string path = dir.path() + "/pipe.safetensors";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const absl::Status refused = SafetensorsFile::Open(path).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(refused), HasSubstr("pipe.safetensors: not a regular file"));
}

TEST(ModelSpec, RefusesANamedPipeAsConfigWithoutWaitingForAWriter) {
  const TempDir dir;
  ASSERT_EQ(::mkfifo((dir.path() + "/config.json").c_str(), 0600), 0);
  const absl::Status refused = ModelSpec::Load(dir.path()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(refused), HasSubstr("config.json: not a regular file"));
}

TEST(SafetensorsFile, RefusesAFileThatWasChangedOrCutSinceItWasOpened) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.Add("a", {2}, Dtype::kBf16, {1.0F, 2.0F});
  const std::string path = dir.path() + "/changing.safetensors";
  ASSERT_TRUE(WriteFileAtomically(path, writer.Render()).ok());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::last_write_time(path, std::filesystem::file_time_type(std::chrono::hours(1)));
  EXPECT_THAT(MessageOf(file->Read(*file->Find("a")).status()),
              HasSubstr("changing.safetensors was changed while it was read"));
  std::filesystem::resize_file(path, file->file().size() - 1);
  const absl::Status cut = file->Read(*file->Find("a")).status();
  EXPECT_EQ(cut.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(MessageOf(cut), HasSubstr("changing.safetensors: ends at byte"));
}

}  // namespace
}  // namespace switchyard
