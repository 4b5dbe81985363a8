#include "libs/openai/response.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

constexpr ResponseHead kChatHead{.id = "chatcmpl-1", .created_s = 1700000000, .model = "demo"};
constexpr ResponseHead kTextHead{.id = "cmpl-1", .created_s = 1700000000, .model = "demo"};
constexpr Usage kUsage{.prompt_tokens = 5, .completion_tokens = 2, .cached_tokens = 4};

std::vector<PositionLogprobs> TwoPositions() {
  return {{.token = {.bytes = "h\xc3\xa9", .logprob = -0.1F},
           .top = {{.bytes = "h\xc3\xa9", .logprob = -0.1F}, {.bytes = "\xc3", .logprob = -2.5F}}},
          {.token = {.bytes = "!", .logprob = -1.0F}, .top = {}}};
}

TEST(ChatCompletionJson, WritesExactBytes) {
  const ChoiceText choices[] = {{.index = 0, .text = "hi \"you\"\n", .finish = ChoiceFinish::kStop},
                                {.index = 1, .text = "", .finish = ChoiceFinish::kLength}};
  EXPECT_EQ(
      ChatCompletionJson(kChatHead, choices, kUsage),
      R"({"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"demo","choices":[)"
      R"({"index":0,"message":{"role":"assistant","content":"hi \"you\"\n"},"logprobs":null,"finish_reason":"stop"},)"
      R"({"index":1,"message":{"role":"assistant","content":""},"logprobs":null,"finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}})");
}

TEST(ChatCompletionJson, WritesLogprobs) {
  const std::vector<PositionLogprobs> positions = TwoPositions();
  const ChoiceText choice{
      .text = "h\xc3\xa9!", .finish = ChoiceFinish::kStop, .logprobs = positions};
  const std::string json = ChatCompletionJson(kChatHead, {&choice, 1}, kUsage);
  EXPECT_NE(
      json.find(
          R"("logprobs":{"content":[{"token":"hé","logprob":-0.1,"bytes":[104,195,169],)"
          R"("top_logprobs":[{"token":"hé","logprob":-0.1,"bytes":[104,195,169]},)"
          "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-2.5,\"bytes\":[195]}]},"
          R"({"token":"!","logprob":-1,"bytes":[33],"top_logprobs":[]}]},"finish_reason":"stop")"),
      std::string::npos)
      << json;
}

TEST(ChatChunkJson, SendsTheRoleWithTheFirstToken) {
  EXPECT_EQ(
      ChatChunkJson(kChatHead, {.text = "a"}, true, nullptr),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","choices":[)"
      R"({"index":0,"delta":{"role":"assistant","content":"a"},"logprobs":null,"finish_reason":null}]})");
  EXPECT_EQ(
      ChatChunkJson(kChatHead, {.index = 2, .text = "b"}, false, &kUsage),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","choices":[)"
      R"({"index":2,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}],)"
      R"("usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}})");
  EXPECT_EQ(
      ChatChunkJson(kChatHead, {.finish = ChoiceFinish::kStop}, false, nullptr),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","choices":[)"
      R"({"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]})");
}

TEST(UsageChunks, HaveNoChoices) {
  EXPECT_EQ(
      ChatUsageChunkJson(kChatHead, kUsage),
      R"({"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","choices":[],)"
      R"("usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":4}}})");
  EXPECT_NE(TextUsageChunkJson(kTextHead, kUsage).find(R"("object":"text_completion")"),
            std::string::npos);
}

TEST(TextCompletionJson, WritesExactBytes) {
  const ChoiceText choice{.text = "ok", .finish = ChoiceFinish::kLength};
  EXPECT_EQ(
      TextCompletionJson(kTextHead, {&choice, 1}, {.prompt_tokens = 1, .completion_tokens = 1}),
      R"({"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"demo","choices":[)"
      R"({"index":0,"text":"ok","logprobs":null,"finish_reason":"length"}],)"
      R"("usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"prompt_tokens_details":{"cached_tokens":0}}})");
}

TEST(TextChunkJson, WritesLogprobsWithOffsetsInCharacters) {
  std::vector<PositionLogprobs> positions = TwoPositions();
  positions.insert(positions.begin(),
                   {.token = {.bytes = "\xf0\x9f", .logprob = 0.0F}, .top = {}, .known = false});
  const ChoiceText choice{.text = "x", .logprobs = positions, .text_offset = 10};
  EXPECT_EQ(
      TextChunkJson(kTextHead, choice, nullptr),
      R"({"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"demo","choices":[)"
      R"({"index":0,"text":"x","logprobs":{"tokens":["bytes:\\xf0\\x9f","hé","!"],)"
      R"("token_logprobs":[null,-0.1,-1],"top_logprobs":[null,{"hé":-0.1,"bytes:\\xc3":-2.5},{}],)"
      R"("text_offset":[10,11,13]},"finish_reason":null}]})");
}

TEST(TextChunkJson, NamesATokenOnceInTopLogprobs) {
  const PositionLogprobs position{
      .token = {.bytes = "a", .logprob = -1.0F},
      .top = {{.bytes = "a", .logprob = -1.0F}, {.bytes = "a", .logprob = -2.0F}}};
  const std::string json = TextChunkJson(kTextHead, {.logprobs = std::span(&position, 1)}, nullptr);
  EXPECT_NE(json.find(R"("top_logprobs":[{"a":-1}])"), std::string::npos) << json;
}

TEST(ModelListJson, WritesExactBytes) {
  const ModelCard model{.id = "demo", .created_s = 7, .max_model_len = 4096};
  const std::string card =
      R"({"id":"demo","object":"model","created":7,"owned_by":"switchyard","max_model_len":4096})";
  EXPECT_EQ(ModelJson(model), card);
  EXPECT_EQ(ModelListJson({&model, 1}), R"({"object":"list","data":[)" + card + "]}");
  EXPECT_EQ(ModelListJson({}), R"({"object":"list","data":[]})");
}

TEST(Sse, FramesEvents) {
  EXPECT_EQ(SseData("{}"), "data: {}\n\n");
  EXPECT_EQ(kSseDone, "data: [DONE]\n\n");
  EXPECT_EQ(SseError(InvalidApiKey()).substr(0, 16), "data: {\"error\":{");
}

TEST(Sse, NoTextCanBreakAFrame) {
  const std::string event =
      SseData(ChatChunkJson(kChatHead, {.text = "a\n\ndata: [DONE]\r\n"}, false, nullptr));
  EXPECT_EQ(event.find('\n'), event.size() - 2);
  EXPECT_EQ(event.find('\r'), std::string::npos);
}

}  // namespace
}  // namespace switchyard
