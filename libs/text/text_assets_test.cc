#include "libs/text/text_assets.h"

#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr const char* kModelDir = "libs/text/testdata";

// A directory with the fixture's tokenizer and the given files.
class AssetsDir {
 public:
  explicit AssetsDir(const std::string& name) : path_(testing::TempDir() + "/sy_text_" + name) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
    Write("tokenizer.json", ReadFile(std::string(kModelDir) + "/tokenizer.json", 1 << 20).value());
  }

  ~AssetsDir() { std::filesystem::remove_all(path_); }

  void Write(const std::string& name, const std::string& content) const {
    EXPECT_TRUE(WriteFileAtomically(path_ + "/" + name, content).ok());
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

TEST(LoadTextAssets, ReadsAModelDirectory) {
  const TextAssets assets = LoadTextAssets(kModelDir).value();
  EXPECT_TRUE(assets.chat_template.has_value());
  EXPECT_EQ(assets.bos_id, assets.tokenizer.TokenIdOf("<|begin|>"));
  EXPECT_THAT(assets.eos_ids, testing::ElementsAre(*assets.tokenizer.TokenIdOf("<|begin|>"),
                                                   *assets.tokenizer.TokenIdOf("<|end|>")));
  EXPECT_EQ(assets.defaults.temperature, 0.6);
  EXPECT_EQ(assets.defaults.top_p, std::nullopt);
}

TEST(LoadTextAssets, TakesOneEosIdOrTheConfigsToken) {
  const AssetsDir dir("eos");
  dir.Write("generation_config.json", R"({"eos_token_id": 7})");
  EXPECT_THAT(LoadTextAssets(dir.path()).value().eos_ids, testing::ElementsAre(7));
  dir.Write("generation_config.json", "{}");
  dir.Write("tokenizer_config.json", R"({"eos_token": "<|end|>"})");
  const TextAssets assets = LoadTextAssets(dir.path()).value();
  EXPECT_THAT(assets.eos_ids, testing::ElementsAre(*assets.tokenizer.TokenIdOf("<|end|>")));
  EXPECT_FALSE(assets.chat_template.has_value());
}

TEST(LoadTextAssets, ATemplateFileGoesFirst) {
  const AssetsDir dir("jinja");
  dir.Write("tokenizer_config.json", R"({"eos_token": "<|end|>", "chat_template": "config"})");
  dir.Write("chat_template.jinja", "file {{ eos_token }}");
  const TextAssets assets = LoadTextAssets(dir.path()).value();
  EXPECT_EQ(assets.chat_template->Render({.messages_json = "[]"}).value(), "file <|end|>");
}

TEST(LoadTextAssets, ErrorsNameTheFile) {
  const AssetsDir dir("bad");
  const auto message = [&dir] { return MessageOf(LoadTextAssets(dir.path()).status()); };
  EXPECT_THAT(message(), testing::HasSubstr("no eos_token_id"));
  dir.Write("generation_config.json", R"({"eos_token_id": 100000})");
  EXPECT_THAT(message(), testing::HasSubstr("generation_config.json: eos_token_id: 100000"));
  dir.Write("generation_config.json", R"({"eos_token_id": "7"})");
  EXPECT_THAT(message(), testing::HasSubstr("generation_config.json"));
  dir.Write("tokenizer_config.json", "[");
  EXPECT_THAT(message(), testing::HasSubstr("tokenizer_config.json: not JSON"));
  dir.Write("tokenizer_config.json", R"({"chat_template": "{% if %}"})");
  EXPECT_THAT(message(), testing::HasSubstr("tokenizer_config.json: chat template"));
  dir.Write("tokenizer.json", "{}");
  EXPECT_THAT(message(), testing::HasSubstr("tokenizer.json: "));
}

}  // namespace
}  // namespace switchyard
