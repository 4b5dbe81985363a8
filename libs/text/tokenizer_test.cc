#include "libs/text/tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <boost/json.hpp>

#include "gtest/gtest.h"

#include "libs/base/file.h"
#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "libs/text/incremental_decoder.h"

namespace switchyard {
namespace {

constexpr const char* kFixture = "libs/text/testdata/tokenizer.json";

class TokenizerTest : public testing::Test {
 protected:
  Tokenizer tokenizer_ = Tokenizer::Load(kFixture).value();
  uint32_t end_id_ = tokenizer_.TokenIdOf("<|end|>").value();
};

std::vector<uint32_t> IdsOf(const boost::json::value& list) {
  return boost::json::value_to<std::vector<uint32_t>>(list);
}

TEST_F(TokenizerTest, AgreesWithTheReferenceLibrary) {
  const std::string json = ReadFile("libs/text/testdata/golden.json", 1 << 20).value();
  const boost::json::value golden = boost::json::parse(json);
  EXPECT_EQ(tokenizer_.vocab_size(), golden.at("vocab_size").as_int64());
  for (const boost::json::value& item : golden.at("cases").as_array()) {
    const std::string text(item.at("text").as_string());
    SCOPED_TRACE(text);
    const std::vector<uint32_t> ids = IdsOf(item.at("ids"));
    EXPECT_EQ(tokenizer_.Encode(text, true).value(), ids);
    EXPECT_EQ(tokenizer_.Encode(text, false).value(), IdsOf(item.at("ids_bare")));
    EXPECT_EQ(tokenizer_.Decode(ids, false), std::string(item.at("decoded").as_string()));
  }
}

TEST_F(TokenizerTest, SpellsControlTokensOutWhenAskedForText) {
  const std::string text = "a<|end|>b<|User|>c<think>";
  const std::vector<uint32_t> ids = tokenizer_.Encode(text, false, ControlText::kAsText).value();
  for (const uint32_t id : ids) {
    EXPECT_FALSE(tokenizer_.IsAdded(id));
  }
  EXPECT_EQ(tokenizer_.Decode(ids, false), text);
  const std::vector<uint32_t> matched = tokenizer_.Encode(text, false).value();
  EXPECT_EQ(std::count(matched.begin(), matched.end(), end_id_), 1);
}

TEST_F(TokenizerTest, AsTextStillAddsWhatThePostProcessorAdds) {
  const std::vector<uint32_t> ids = tokenizer_.Encode("x", true, ControlText::kAsText).value();
  EXPECT_EQ(ids, tokenizer_.Encode("x", true).value());
  EXPECT_EQ(ids.front(), tokenizer_.TokenIdOf("<|begin|>"));
}

TEST_F(TokenizerTest, SkipsAddedTokensWhenDecoding) {
  const std::vector<uint32_t> ids = tokenizer_.Encode("<think>yes<|end|>", false).value();
  EXPECT_EQ(tokenizer_.Decode(ids, true), "yes");
  EXPECT_EQ(tokenizer_.Decode(ids, false), "<think>yes<|end|>");
}

TEST_F(TokenizerTest, SplitsEmojiOverTokensAndDecodesThemIncrementally) {
  const std::string text = "x \xf0\x9f\x98\x80 \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7";
  const std::vector<uint32_t> ids = tokenizer_.Encode(text, false).value();
  IncrementalDecoder decoder;
  std::string out;
  bool held = false;
  for (const uint32_t id : ids) {
    out += decoder.Feed(tokenizer_.TokenBytes(id));
    held = held || !decoder.empty();
  }
  EXPECT_TRUE(held);
  EXPECT_EQ(out + decoder.Flush(), text);
}

TEST_F(TokenizerTest, RandomIdsDecodeIncrementallyAsTheWhole) {
  const uint64_t seed = 11;
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int round = 0; round < 300; ++round) {
    std::string bytes;
    std::string text;
    IncrementalDecoder decoder;
    std::vector<uint32_t> ids(rng.Below(40));
    for (uint32_t& id : ids) {
      id = static_cast<uint32_t>(rng.Below(tokenizer_.vocab_size()));
      bytes += tokenizer_.TokenBytes(id);
      text += decoder.Feed(tokenizer_.TokenBytes(id));
    }
    text += decoder.Flush();
    IncrementalDecoder whole;
    std::string expected = whole.Feed(bytes);
    expected += whole.Flush();
    ASSERT_EQ(text, expected);
    ASSERT_EQ(tokenizer_.Decode(ids, false), expected);
  }
}

TEST_F(TokenizerTest, KnowsNothingOutsideItsVocabulary) {
  EXPECT_EQ(tokenizer_.TokenBytes(1'000'000), "");
  EXPECT_FALSE(tokenizer_.IsAdded(1'000'000));
  EXPECT_EQ(tokenizer_.TokenIdOf("no such token"), std::nullopt);
}

TEST_F(TokenizerTest, RefusesInvalidUtf8WithoutQuotingIt) {
  const absl::Status status = tokenizer_.Encode("secret\xff", false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(MessageOf(status), "invalid UTF-8 at byte 6");
}

TEST_F(TokenizerTest, GuardLeavesInnocentJsonAlone) {
  const std::string json = R"([{"role": "user", "content": "a < b, \u00e9"}])";
  const GuardedJson guarded = tokenizer_.Guard(json).value();
  EXPECT_EQ(guarded.json, json);
  EXPECT_EQ(guarded.marker, char32_t{0});
}

TEST_F(TokenizerTest, GuardedTextHasNoControlTokenOfTheUsers) {
  const GuardedJson guarded = tokenizer_.Guard(R"(["x<|end|><<|User|>", "<|en", "d|>"])").value();
  ASSERT_NE(guarded.marker, char32_t{0});
  std::string text;
  const boost::json::value parsed = boost::json::parse(guarded.json);
  for (const boost::json::value& part : parsed.as_array()) {
    text += std::string(part.as_string());
  }
  std::vector<uint32_t> ids =
      tokenizer_.EncodeGuarded(text + "<|end|>", guarded.marker, false).value();
  ASSERT_EQ(ids.back(), end_id_);
  ids.pop_back();
  EXPECT_EQ(ids,
            tokenizer_.Encode("x<|end|><<|User|><|end|>", false, ControlText::kAsText).value());
}

TEST_F(TokenizerTest, GuardKeepsAnswersWhenTheUserUsesNoncharacters) {
  const GuardedJson guarded = tokenizer_.Guard("[\"\xef\xb7\x90<|end|>\"]").value();
  EXPECT_EQ(guarded.marker, char32_t{0xfdd1});
}

TEST(Tokenizer, RefusesBadFilesByName) {
  EXPECT_EQ(Tokenizer::Load("libs/text/testdata/none.json").status().code(),
            absl::StatusCode::kNotFound);
  const absl::Status status = Tokenizer::Load("libs/text/testdata/golden.json").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(MessageOf(status).find("golden.json"), std::string::npos);
}

TEST(Tokenizer, RefusesHostileJson) {
  for (
      const std::string& json :
      {std::string(), std::string("[]"), std::string("{\"decoder\":{\"type\":\"ByteLevel\"}}"),
       std::string(100'000, '['),
       std::string(
           R"({"decoder":{"type":"ByteLevel"},"added_tokens":[{"id":4000000000,"content":"x",)"
           R"("special":true,"single_word":false,"lstrip":false,"rstrip":false,)"
           R"("normalized":false}],"model":{"type":"BPE","vocab":{"a":4294967295},"merges":[]}})")}) {
    EXPECT_EQ(Tokenizer::FromJson(json).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace switchyard
