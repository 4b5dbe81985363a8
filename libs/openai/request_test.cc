#include "libs/openai/request.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using testing::ElementsAre;
using testing::Pair;

ChatRequest Chat(std::string_view body) {
  const auto result = ParseChatRequest(body, {});
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  return result.ok() ? result.value() : ChatRequest{};
}

CompletionRequest Completion(std::string_view body) {
  const auto result = ParseCompletionRequest(body, {});
  EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
  return result.ok() ? result.value() : CompletionRequest{};
}

TEST(ParseChatRequest, TakesTheSmallestRequestWithDefaults) {
  const ChatRequest request = Chat(R"({"messages":[{"role":"user","content":"hi"}]})");
  EXPECT_EQ(request.messages_json, R"([{"role":"user","content":"hi"}])");
  EXPECT_EQ(request.message_count, 1U);
  EXPECT_EQ(request.sampling.model, "");
  EXPECT_EQ(request.sampling.n, 1);
  EXPECT_EQ(request.sampling.max_tokens, std::nullopt);
  EXPECT_EQ(request.sampling.temperature, std::nullopt);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.0);
  EXPECT_FALSE(request.sampling.stream);
  EXPECT_TRUE(request.add_generation_prompt);
}

TEST(ParseChatRequest, ReadsEveryField) {
  const ChatRequest request = Chat(R"({"model":"demo","messages":[{"role":"user","content":"x"}],
    "max_tokens":9,"max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,
    "n":3,"stop":["a","b"],"stop_token_ids":[5,6],"include_stop_str_in_output":true,"seed":1234,
    "stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true},
    "presence_penalty":-1,"frequency_penalty":2,"repetition_penalty":1.1,
    "logit_bias":{"9":-100,"3":1.5},
    "min_tokens":2,"ignore_eos":true,"cache_salt":"s","logprobs":true,"top_logprobs":20,
    "add_generation_prompt":false})");
  const SamplingFields& fields = request.sampling;
  EXPECT_EQ(fields.model, "demo");
  EXPECT_EQ(fields.max_tokens, 7);
  EXPECT_EQ(fields.temperature, 0.5);
  EXPECT_EQ(fields.top_p, 0.9);
  EXPECT_EQ(fields.top_k, 40);
  EXPECT_EQ(fields.min_p, 0.05);
  EXPECT_EQ(fields.n, 3);
  EXPECT_THAT(fields.stop, ElementsAre("a", "b"));
  EXPECT_THAT(fields.stop_token_ids, ElementsAre(5, 6));
  EXPECT_TRUE(fields.include_stop_str_in_output);
  EXPECT_EQ(fields.seed, 1234);
  EXPECT_TRUE(fields.stream && fields.include_usage && fields.continuous_usage_stats);
  EXPECT_EQ(fields.presence_penalty, -1.0);
  EXPECT_EQ(fields.frequency_penalty, 2.0);
  EXPECT_EQ(fields.repetition_penalty, 1.1);
  EXPECT_THAT(fields.logit_bias, ElementsAre(Pair(3, 1.5F), Pair(9, -100.0F)));
  EXPECT_EQ(fields.min_tokens, 2);
  EXPECT_TRUE(fields.ignore_eos);
  EXPECT_EQ(fields.cache_salt, "s");
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.top_logprobs, 20);
  EXPECT_FALSE(request.add_generation_prompt);
  EXPECT_EQ(fields.unknown_field_count, 0U);
}

TEST(ParseChatRequest, NullMeansAbsent) {
  const ChatRequest request =
      Chat(R"({"messages":[{"role":"user","content":"x","name":null}],"max_tokens":null,"stop":null,
      "temperature":null,"stream":null,"tools":null,"stream_options":null,"logit_bias":null})");
  EXPECT_EQ(request.sampling.max_tokens, std::nullopt);
  EXPECT_EQ(request.sampling.temperature, std::nullopt);
}

TEST(ParseChatRequest, RewritesMessagesForTemplates) {
  const ChatRequest request = Chat(R"({"messages":[
    {"role":"developer","content":"d"},
    {"role":"user","name":"ann",
     "content":[{"type":"text","text":"a\n\""},{"type":"text","text":"b"}],"x":1},
    {"role":"assistant","content":null,"tool_calls":[ {"id": "1", "n": 1.5} ]},
    {"role":"tool","tool_call_id":"1","content":"\ud83d\ude00"},
    {"role":"assistant","content":"c","reasoning_content":"r"}]})");
  EXPECT_EQ(request.messages_json,
            R"([{"role":"system","content":"d"},)"
            R"({"role":"user","content":"a\n\"\nb","name":"ann"},)"
            R"({"role":"assistant","content":null,"tool_calls":[{"id":"1","n":1.5}]},)"
            R"({"role":"tool","content":"😀","tool_call_id":"1"},)"
            R"({"role":"assistant","content":"c","reasoning_content":"r"}])");
  EXPECT_EQ(request.message_count, 5U);
}

TEST(ParseChatRequest, CountsUnknownFieldsAndIgnoresKnownOnes) {
  const ChatRequest request =
      Chat(R"({"messages":[{"role":"user","content":"x"}],"user":"u","metadata":{"a":"b"},
      "store":true,"temprature":1,"shiny":{"new":[]}})");
  EXPECT_EQ(request.sampling.unknown_field_count, 2U);
  EXPECT_THAT(request.sampling.unknown_fields, ElementsAre("temprature", "shiny"));
}

TEST(ParseChatRequest, AcceptsNeutralFormsOfUnsupportedFields) {
  Chat(R"({"messages":[{"role":"user","content":"x"}],"tools":[],"tool_choice":"auto",
    "response_format":{"type":"text"},"modalities":["text"],"suffix":"","best_of":1,"n":1,
    "use_beam_search":false,"skip_special_tokens":true,"functions":[],"top_logprobs":0})");
}

TEST(ParseChatRequest, NormalisesTopKAndSingleStop) {
  const ChatRequest request = Chat(
      R"({"messages":[{"role":"user","content":"x"}],"top_k":-1,"stop":"END","seed":-9223372036854775808})");
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_THAT(request.sampling.stop, ElementsAre("END"));
  EXPECT_EQ(request.sampling.seed, INT64_MIN);
}

TEST(ParseCompletionRequest, TakesEveryFormOfPrompt) {
  EXPECT_THAT(Completion(R"({"prompt":"a"})").prompts, ElementsAre(Prompt(std::string("a"))));
  EXPECT_THAT(Completion(R"({"prompt":["a","b"]})").prompts,
              ElementsAre(Prompt(std::string("a")), Prompt(std::string("b"))));
  EXPECT_THAT(Completion(R"({"prompt":[1,2]})").prompts,
              ElementsAre(Prompt(std::vector<uint32_t>{1, 2})));
  EXPECT_THAT(Completion(R"({"prompt":[[1,2],"b"]})").prompts,
              ElementsAre(Prompt(std::vector<uint32_t>{1, 2}), Prompt(std::string("b"))));
}

TEST(ParseCompletionRequest, DefaultsAsOpenAiDocuments) {
  const CompletionRequest request = Completion(R"({"prompt":"a"})");
  EXPECT_EQ(request.sampling.max_tokens, 16);
  EXPECT_EQ(request.logprobs, std::nullopt);
  EXPECT_FALSE(request.echo);
  EXPECT_TRUE(request.add_special_tokens);
}

TEST(ParseCompletionRequest, ScoresAPromptWithoutGenerating) {
  const CompletionRequest request =
      Completion(R"({"prompt":"a","max_tokens":0,"echo":true,"logprobs":0,"seed":1234})");
  EXPECT_EQ(request.sampling.max_tokens, 0);
  EXPECT_EQ(request.logprobs, 0);
  EXPECT_TRUE(request.echo);
}

}  // namespace
}  // namespace switchyard
