// Every refusal: its status, its code and the field that it names.
#include <string>
#include <string_view>
#include <vector>

#include <spdlog/fmt/fmt.h>

#include "gtest/gtest.h"

#include "libs/openai/request.h"

namespace switchyard {
namespace {

struct BadField {
  const char* members;  // Added to an otherwise good request.
  const char* param;
  const char* code = "invalid_value";
};

constexpr ParseLimits kLimits{.vocab_size = 1000};

template <typename Parse>
void ExpectRefused(Parse parse, const std::string& body, std::string_view param,
                   std::string_view code) {
  SCOPED_TRACE(body.substr(0, 200));
  const auto result = parse(body, kLimits);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().http_status, 400);
  EXPECT_EQ(result.error().type, "invalid_request_error");
  EXPECT_EQ(result.error().param, param);
  EXPECT_EQ(result.error().code, code);
  EXPECT_EQ(result.error().message.find("canary"), std::string::npos);
  EXPECT_LT(result.error().message.size(), 300U);
}

std::string ChatWith(std::string_view members) {
  return fmt::format(R"({{"messages":[{{"role":"user","content":"canary"}}],{}}})", members);
}

std::string CompletionWith(std::string_view members) {
  return fmt::format(R"({{"prompt":"canary",{}}})", members);
}

constexpr BadField kBadSampling[] = {
    {R"("model":5)", "model"},
    {R"("n":0)", "n"},
    {R"("n":-1)", "n"},
    {R"("n":1000000000)", "n"},
    {R"("n":1.5)", "n"},
    {R"("n":"2")", "n"},
    {R"("n":true)", "n"},
    {R"("max_tokens":-1)", "max_tokens"},
    {R"("max_tokens":0)", "max_tokens"},
    {R"("max_tokens":2147483648)", "max_tokens"},
    {R"("max_tokens":18446744073709551615)", "max_tokens"},
    {R"("max_tokens":1.0)", "max_tokens"},
    {R"("max_tokens":[])", "max_tokens"},
    {R"("max_tokens":4,"min_tokens":5)", "min_tokens"},
    {R"("min_tokens":-1)", "min_tokens"},
    {R"("temperature":-1)", "temperature"},
    {R"("temperature":2.001)", "temperature"},
    {R"("temperature":1e308)", "temperature"},
    {R"("temperature":"NaN")", "temperature"},
    {R"("temperature":false)", "temperature"},
    {R"("top_p":0)", "top_p"},
    {R"("top_p":-0.1)", "top_p"},
    {R"("top_p":2)", "top_p"},
    {R"("top_k":-2)", "top_k"},
    {R"("top_k":0.5)", "top_k"},
    {R"("min_p":2)", "min_p"},
    {R"("min_p":-0.1)", "min_p"},
    {R"("presence_penalty":1e9)", "presence_penalty"},
    {R"("frequency_penalty":-2.5)", "frequency_penalty"},
    {R"("repetition_penalty":0)", "repetition_penalty"},
    {R"("repetition_penalty":-1)", "repetition_penalty"},
    {R"("repetition_penalty":11)", "repetition_penalty"},
    {R"("seed":9223372036854775808)", "seed"},
    {R"("seed":1.5)", "seed"},
    {R"("stop":5)", "stop"},
    {R"("stop":"")", "stop"},
    {R"("stop":["a",5])", "stop"},
    {R"("stop":["a",["b"]])", "stop"},
    {R"("stop":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
     "stop"},
    {R"("stop_token_ids":5)", "stop_token_ids"},
    {R"("stop_token_ids":[-1])", "stop_token_ids[0]"},
    {R"("stop_token_ids":[1,1000])", "stop_token_ids[1]"},
    {R"("stream":1)", "stream"},
    {R"("stream":"true")", "stream"},
    {R"("stream_options":{"include_usage":true})", "stream_options"},
    {R"("stream":false,"stream_options":{})", "stream_options"},
    {R"("stream":true,"stream_options":5)", "stream_options"},
    {R"("stream":true,"stream_options":{"include_usage":1})", "stream_options.include_usage"},
    {R"("logit_bias":[])", "logit_bias"},
    {R"("logit_bias":{"abc":1})", "logit_bias"},
    {R"("logit_bias":{"":1})", "logit_bias"},
    {R"("logit_bias":{"-1":1})", "logit_bias"},
    {R"("logit_bias":{"1000":1})", "logit_bias"},
    {R"("logit_bias":{"4294967296":1})", "logit_bias"},
    {R"("logit_bias":{"1":1e9})", "logit_bias"},
    {R"("logit_bias":{"1":"1"})", "logit_bias"},
    {R"("logit_bias":{"1":1,"01":2})", "logit_bias"},
    {R"("ignore_eos":"no")", "ignore_eos"},
    {R"("cache_salt":5)", "cache_salt"},
    {R"("skip_special_tokens":false)", "skip_special_tokens", "unsupported_parameter"},
    {R"("best_of":5)", "best_of", "unsupported_parameter"},
    {R"("best_of":"5")", "best_of"},
    {R"("tools":[{"type":"function"}])", "tools", "unsupported_parameter"},
    {R"("tool_choice":"required")", "tool_choice", "unsupported_parameter"},
    {R"("tool_choice":{"type":"function"})", "tool_choice", "unsupported_parameter"},
    {R"("functions":[{}])", "functions", "unsupported_parameter"},
    {R"("function_call":"auto")", "function_call", "unsupported_parameter"},
    {R"("response_format":{"type":"json_object"})", "response_format", "unsupported_parameter"},
    {R"("response_format":{"type":"json_schema"})", "response_format", "unsupported_parameter"},
    {R"("response_format":"text")", "response_format"},
    {R"("response_format":{})", "response_format"},
    {R"("modalities":["audio"])", "modalities", "unsupported_parameter"},
    {R"("modalities":["text","audio"])", "modalities", "unsupported_parameter"},
    {R"("modalities":"text")", "modalities", "unsupported_parameter"},
    {R"("audio":{"voice":"x"})", "audio", "unsupported_parameter"},
    {R"("images":["http://169.254.169.254"])", "images", "unsupported_parameter"},
    {R"("suffix":"canary")", "suffix", "unsupported_parameter"},
    {R"("use_beam_search":true)", "use_beam_search", "unsupported_parameter"},
    {R"("prompt_embeds":"canary")", "prompt_embeds", "unsupported_parameter"},
    {R"("chat_template":"canary")", "chat_template", "unsupported_parameter"},
    {R"("chat_template_kwargs":{"a":1})", "chat_template_kwargs", "unsupported_parameter"},
    {R"("mm_processor_kwargs":{"a":1})", "mm_processor_kwargs", "unsupported_parameter"},
    {R"("guided_json":{"a":1})", "guided_json", "unsupported_parameter"},
    {R"("structured_outputs":{"regex":"(a+)+$"})", "structured_outputs", "unsupported_parameter"},
    {R"("prompt_logprobs":5)", "prompt_logprobs", "unsupported_parameter"},
};

TEST(ParseRequests, RefuseBadSamplingFieldsByName) {
  for (const BadField& bad : kBadSampling) {
    ExpectRefused(ParseChatRequest, ChatWith(bad.members), bad.param, bad.code);
    ExpectRefused(ParseCompletionRequest, CompletionWith(bad.members), bad.param, bad.code);
  }
}

TEST(ParseChatRequest, RefusesBadChatFieldsByName) {
  constexpr BadField kBad[] = {
      {R"("logprobs":5)", "logprobs"},
      {R"("top_logprobs":5)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":21)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":-1)", "top_logprobs"},
      {R"("logprobs":true,"top_logprobs":1000000)", "top_logprobs"},
      {R"("max_completion_tokens":0)", "max_completion_tokens"},
      {R"("max_tokens":5,"max_completion_tokens":"5")", "max_completion_tokens"},
      {R"("max_tokens":-5,"max_completion_tokens":5)", "max_tokens"},
      {R"("echo":true)", "echo", "unsupported_parameter"},
      {R"("add_generation_prompt":1)", "add_generation_prompt"},
  };
  for (const BadField& bad : kBad) {
    ExpectRefused(ParseChatRequest, ChatWith(bad.members), bad.param, bad.code);
  }
}

TEST(ParseChatRequest, RefusesBadMessagesByName) {
  constexpr BadField kBad[] = {
      {"5", "messages"},
      {"[]", "messages"},
      {R"("canary")", "messages"},
      {"[5]", "messages[0]"},
      {"[null]", "messages[0]"},
      {"[{}]", "messages[0].role"},
      {R"([{"role":5,"content":"canary"}])", "messages[0].role"},
      {R"([{"role":"canary","content":"x"}])", "messages[0].role"},
      {R"([{"role":"function","content":"x"}])", "messages[0].role"},
      {R"([{"role":"User","content":"x"}])", "messages[0].role"},
      {R"([{"role":"user"}])", "messages[0].content"},
      {R"([{"role":"user","content":null}])", "messages[0].content"},
      {R"([{"role":"system","content":null}])", "messages[0].content"},
      {R"([{"role":"user","content":5}])", "messages[0].content"},
      {R"([{"role":"user","content":{}}])", "messages[0].content"},
      {R"([{"role":"user","content":[]}])", "messages[0].content"},
      {R"([{"role":"user","content":["canary"]}])", "messages[0].content[0]"},
      {R"([{"role":"user","content":[{}]}])", "messages[0].content[0].type"},
      {R"([{"role":"user","content":[{"type":"text"}]}])", "messages[0].content[0].text"},
      {R"([{"role":"user","content":[{"type":"text","text":5}]}])", "messages[0].content[0].text"},
      {R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":"file:///etc/passwd"}]}])",
       "messages[0].content[1].type", "unsupported_parameter"},
      {R"([{"role":"user","content":[{"type":"input_audio"}]}])", "messages[0].content[0].type",
       "unsupported_parameter"},
      {R"([{"role":"user","content":"a"},{"role":"user","content":"b","name":5}])",
       "messages[1].name"},
      {R"([{"role":"tool","content":"a"}])", "messages[0].tool_call_id"},
      {R"([{"role":"tool","content":"a","tool_call_id":5}])", "messages[0].tool_call_id"},
      {R"([{"role":"assistant","tool_calls":{}}])", "messages[0].tool_calls"},
      {R"([{"role":"assistant","content":"a","reasoning_content":5}])",
       "messages[0].reasoning_content"},
  };
  for (const BadField& bad : kBad) {
    ExpectRefused(ParseChatRequest, fmt::format(R"({{"messages":{}}})", bad.members), bad.param,
                  bad.code);
  }
  ExpectRefused(ParseChatRequest, "{}", "messages", "invalid_value");
  ExpectRefused(ParseChatRequest, R"({"messages":null})", "messages", "invalid_value");
}

TEST(ParseCompletionRequest, RefusesBadPromptsByName) {
  constexpr BadField kBad[] = {
      {"5", "prompt"},
      {"null", "prompt"},
      {"true", "prompt"},
      {"{}", "prompt"},
      {"[]", "prompt"},
      {"[[]]", "prompt[0]"},
      {"[-1]", "prompt[0]"},
      {"[1,1000]", "prompt[1]"},
      {"[1,2.5]", "prompt[1]"},
      {"[1.5]", "prompt[0]"},
      {R"([1,"canary"])", "prompt[1]"},
      {R"(["canary",1])", "prompt[1]"},
      {"[[1],[2,-1]]", "prompt[1][1]"},
      {"[[[1]]]", "prompt[0][0]"},
      {"[null]", "prompt[0]"},
      {R"([{"canary":1}])", "prompt[0]"},
  };
  for (const BadField& bad : kBad) {
    ExpectRefused(ParseCompletionRequest, fmt::format(R"({{"prompt":{}}})", bad.members), bad.param,
                  bad.code);
  }
  ExpectRefused(ParseCompletionRequest, "{}", "prompt", "invalid_value");
}

TEST(ParseCompletionRequest, RefusesBadCompletionFieldsByName) {
  constexpr BadField kBad[] = {
      {R"("logprobs":true)", "logprobs"},
      {R"("logprobs":21)", "logprobs"},
      {R"("logprobs":-1)", "logprobs"},
      {R"("echo":"yes")", "echo"},
      {R"("max_tokens":0,"echo":false)", "max_tokens"},
      {R"("add_special_tokens":0)", "add_special_tokens"},
  };
  for (const BadField& bad : kBad) {
    ExpectRefused(ParseCompletionRequest, CompletionWith(bad.members), bad.param, bad.code);
  }
}

TEST(ParseRequests, RefuseBodiesThatAreNotOneJsonObject) {
  const std::string good = R"({"messages":[{"role":"user","content":"x"}],"prompt":"x"})";
  const std::vector<std::string> bodies = {
      "",
      " ",
      "canary",
      "[]",
      "\"canary\"",
      "null",
      "5",
      "{",
      good.substr(0, good.size() - 1),
      good + "x",
      good + good,
      good + ",",
      "\xef\xbb\xbf" + good,
      R"({"prompt":"x",})",
      R"({"prompt":"x" /* canary */})",
      R"({"prompt":'x'})",
      R"({prompt:"x"})",
      R"({"prompt":"x","n":01})",
      R"({"prompt":"x","n":NaN})",
      R"({"prompt":"x","temperature":Infinity})",
      R"({"prompt":"x","temperature":1e400})",
      R"({"prompt":"x","temperature":-1e400})",
      R"({"prompt":"x","temperature":.5})",
      R"({"prompt":"x","n":)" + std::string(400, '1') + "}",
      R"({"prompt":"\ud800"})",
      R"({"prompt":"\udc00"})",
      R"({"prompt":"\ud800\u0041"})",
      R"({"prompt":"\ud800\ud800"})",
      R"({"prompt":"\\\ud800"})",
      R"({"prompt":"\u12"})",
      R"({"prompt":"\u)",
      R"({"prompt":"\x41"})",
      "{\"prompt\":\"a\nb\"}",
      "{\"prompt\":\"\xff\"}",
      "{\"prompt\":\"\xc0\xaf\"}",
      "{\"prompt\":\"\xed\xa0\x80\"}",
      std::string("{\"prompt\":\"a\0b\"}", 16),
      R"({"prompt":"x","prompt":"y"})",
      R"({"prompt":"x","a":{"b":1,"c":2,"b":3}})",
      R"({"prompt":"x","a":[[{"b":1,"b":1}]]})",
      R"({"prompt":"x","a":)" + std::string(100'000, '[') + std::string(100'000, ']') + "}",
      std::string(100'000, '['),
  };
  for (const std::string& body : bodies) {
    ExpectRefused(ParseChatRequest, body, "", "invalid_json");
    ExpectRefused(ParseCompletionRequest, body, "", "invalid_json");
  }
}

TEST(ParseRequests, AcceptOddButGoodJson) {
  for (const char* body :
       {R"({"prompt":"\u0000\ud83d\ude00\\ud800"})", R"({"prompt":"x","temperature":1E-400})",
        R"({"prompt":"x","temperature":-0})", " {\"prompt\" : \"x\" }\r\n\t"}) {
    SCOPED_TRACE(body);
    EXPECT_TRUE(ParseCompletionRequest(body, kLimits).ok());
  }
}

TEST(ParseRequests, RefuseWhatExceedsANamedLimit) {
  std::string many_members = R"({"prompt":"x")";
  for (int i = 0; i < 300; ++i) {
    many_members += fmt::format(R"(,"field{}":1)", i);
  }
  ExpectRefused(ParseCompletionRequest, many_members + "}", "", "invalid_json");
  std::string bias;
  for (int i = 0; i < 2000; ++i) {
    bias += fmt::format(R"({}"{}":1)", i == 0 ? "" : ",", i);
  }
  ExpectRefused(ParseCompletionRequest, CompletionWith(R"("logit_bias":{)" + bias + "}"),
                "logit_bias", "invalid_value");
  const std::string long_text(2000, 'a');
  ExpectRefused(ParseCompletionRequest, CompletionWith(fmt::format(R"("stop":"{}")", long_text)),
                "stop", "invalid_value");
  ExpectRefused(ParseCompletionRequest, CompletionWith(fmt::format(R"("model":"{}")", long_text)),
                "model", "invalid_value");
  std::string prompts = "\"x\"";
  for (int i = 0; i < 200; ++i) {
    prompts += ",\"x\"";
  }
  ExpectRefused(ParseCompletionRequest, fmt::format(R"({{"prompt":[{}]}})", prompts), "prompt",
                "invalid_value");
  ExpectRefused(ParseCompletionRequest, R"({"prompt":["a","b"],"n":100})", "n", "invalid_value");
}

TEST(ParseRequests, RefuseALargeBodyWith413) {
  const ParseLimits limits{.body_bytes_max = 20};
  const auto result = ParseCompletionRequest(R"({"prompt":"aaaaaaaaaaaaaaaaaa"})", limits);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().http_status, 413);
  EXPECT_EQ(result.error().code, "request_too_large");
}

}  // namespace
}  // namespace switchyard
