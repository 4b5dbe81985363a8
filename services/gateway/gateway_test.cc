#include "services/gateway/gateway.h"

#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <spdlog/fmt/ranges.h>

#include "libs/base/status.h"
#include "libs/security/sha256.h"
#include "services/gateway/generation_plan.h"
#include "services/gateway/testing/gateway_fixture.h"

namespace switchyard {
namespace {

constexpr std::string_view kChat =
    R"({"model":"test-model","messages":[{"role":"user","content":"hello there"}]})";
constexpr std::string_view kChatStream =
    R"({"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}})";

using GatewayTest = GatewayFixture;

std::string_view Text(const boost::json::value& value, std::string_view pointer) {
  boost::json::error_code error;
  const boost::json::value* const found = value.find_pointer(std::string(pointer), error);
  return found != nullptr && found->is_string()
             ? std::string_view(found->get_string().data(), found->get_string().size())
             : std::string_view();
}

int64_t Number(const boost::json::value& value, std::string_view pointer) {
  boost::json::error_code error;
  const boost::json::value* const found = value.find_pointer(std::string(pointer), error);
  return found != nullptr && found->is_int64() ? found->get_int64() : -1;
}

TEST_F(GatewayTest, AnswersAChat) {
  router_.SetScript({.tokens = Ids("The router adds the rows.")});
  StartGateway();
  const RawClient::Response response = Post("/v1/chat/completions", kChat);
  ASSERT_EQ(response.status, 200) << response.body;
  const boost::json::value json = JsonOf(response.body);
  EXPECT_EQ(Text(json, "/object"), "chat.completion");
  EXPECT_EQ(Text(json, "/model"), "test-model");
  EXPECT_TRUE(Text(json, "/id").starts_with("chatcmpl-"));
  EXPECT_EQ(Text(json, "/choices/0/message/role"), "assistant");
  EXPECT_EQ(Text(json, "/choices/0/message/content"), "The router adds the rows.");
  EXPECT_EQ(Text(json, "/choices/0/finish_reason"), "stop");
  const v1::GenerateRequest request = router_.requests().at(0);
  EXPECT_EQ(PromptText(request), "<|begin|><|User|>hello there<|Assistant|>");
  EXPECT_EQ(Number(json, "/usage/prompt_tokens"), request.prompt_tokens_size());
  EXPECT_EQ(Number(json, "/usage/completion_tokens"),
            static_cast<int64_t>(Ids("The router adds the rows.").size()));
  EXPECT_EQ(Number(json, "/usage/prompt_tokens_details/cached_tokens"), 2);
}

TEST_F(GatewayTest, CountsTheCachedTokensOfEachPromptOnceAndPassesTheSaltOn) {
  router_.SetScript({.tokens = Ids("a")});
  StartGateway();
  const RawClient::Response response = Post(
      "/v1/completions", R"({"prompt":["hello","there"],"n":2,"max_tokens":4,"cache_salt":"s"})");
  ASSERT_EQ(response.status, 200) << response.body;
  const boost::json::value json = JsonOf(response.body);
  EXPECT_EQ(Number(json, "/usage/prompt_tokens_details/cached_tokens"), 4);
  ASSERT_EQ(router_.requests().size(), 4U);
  for (const v1::GenerateRequest& request : router_.requests()) {
    EXPECT_EQ(request.cache_salt(), "s");
  }
}

TEST_F(GatewayTest, FillsInWhatARequestLeavesOut) {
  router_.SetScript({.tokens = Ids("a")});
  StartGateway();
  EXPECT_EQ(Post("/v1/chat/completions", kChat).status, 200);
  EXPECT_EQ(Post("/v1/chat/completions", kChat).status, 200);
  const v1::GenerateRequest first = router_.requests().at(0);
  EXPECT_FLOAT_EQ(first.sampling().temperature(), 0.6F);  // generation_config.json
  EXPECT_FLOAT_EQ(first.sampling().top_p(), 1.0F);
  EXPECT_EQ(first.max_tokens(),
            FakeRouter::kContextTokens - static_cast<uint32_t>(first.prompt_tokens_size()));
  EXPECT_EQ(static_cast<size_t>(first.stop_tokens_size()), assets_.eos_ids.size());
  EXPECT_NE(first.sampling().seed(), router_.requests().at(1).sampling().seed());
}

TEST_F(GatewayTest, StreamsAChat) {
  const std::vector<uint32_t> ids = Ids("Grüße 你好, the rows");
  router_.SetScript({.tokens = ids});
  StartGateway();
  const RawClient::Response response = Post("/v1/chat/completions", kChatStream);
  ASSERT_EQ(response.status, 200);
  EXPECT_TRUE(response.complete);
  EXPECT_TRUE(response.Header("content-type").starts_with("text/event-stream"));
  bool done = false;
  const std::vector<boost::json::value> events = EventsOf(response.body, &done);
  EXPECT_TRUE(done);
  ASSERT_GE(events.size(), 3U);
  EXPECT_EQ(Text(events[0], "/choices/0/delta/role"), "assistant");
  std::string text;
  for (size_t i = 0; i + 1 < events.size(); ++i) {
    text += Text(events[i], "/choices/0/delta/content");
    EXPECT_EQ(i > 0 && !Text(events[i], "/choices/0/delta/role").empty(), false);
  }
  EXPECT_EQ(text, "Grüße 你好, the rows");
  EXPECT_EQ(Text(events[events.size() - 2], "/choices/0/finish_reason"), "stop");
  EXPECT_TRUE(events.back().at("choices").as_array().empty());
  EXPECT_EQ(Number(events.back(), "/usage/completion_tokens"), static_cast<int64_t>(ids.size()));
}

TEST_F(GatewayTest, MakesOneCallPerChoice) {
  router_.SetScript({.tokens = Ids("same")});
  StartGateway();
  const RawClient::Response response = Post(
      "/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"n":2,"seed":7})");
  ASSERT_EQ(response.status, 200) << response.body;
  const boost::json::value json = JsonOf(response.body);
  EXPECT_EQ(Text(json, "/choices/0/message/content"), "same");
  EXPECT_EQ(Text(json, "/choices/1/message/content"), "same");
  EXPECT_EQ(Number(json, "/choices/1/index"), 1);
  const std::vector<v1::GenerateRequest> requests = router_.requests();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].sampling().seed(), 7U);
  EXPECT_EQ(requests[1].sampling().seed(), 7U);
  EXPECT_EQ(requests[0].sampling().choice_index() + requests[1].sampling().choice_index(), 1U);
}

TEST_F(GatewayTest, FinishesEachStreamedChoiceOnce) {
  router_.SetScript({.tokens = Ids("same text")});
  StartGateway();
  const RawClient::Response response =
      Post("/v1/completions", R"({"prompt":["a","b"],"n":2,"stream":true})");
  bool done = false;
  std::vector<std::string> texts(4);
  std::vector<int> finishes(4, 0);
  for (const boost::json::value& event : EventsOf(response.body, &done)) {
    const auto index = static_cast<size_t>(Number(event, "/choices/0/index"));
    ASSERT_LT(index, 4U);
    texts[index] += Text(event, "/choices/0/text");
    finishes[index] += Text(event, "/choices/0/finish_reason").empty() ? 0 : 1;
  }
  EXPECT_TRUE(done);
  EXPECT_EQ(texts, std::vector<std::string>(4, "same text"));
  EXPECT_EQ(finishes, std::vector<int>(4, 1));
}

TEST_F(GatewayTest, CancelsTheCallAtAStopString) {
  router_.SetScript({.tokens = Ids("one two three four"), .hangs = true});
  StartGateway();
  const RawClient::Response response = Post(
      "/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"stop":" three"})");
  ASSERT_EQ(response.status, 200);
  const boost::json::value json = JsonOf(response.body);
  EXPECT_EQ(Text(json, "/choices/0/message/content"), "one two");
  EXPECT_EQ(Text(json, "/choices/0/finish_reason"), "stop");
  EXPECT_TRUE(router_.AwaitCancelled(1));
}

TEST_F(GatewayTest, SaysWhenTheLengthEndedAChoice) {
  router_.SetScript({.tokens = Ids("one two three four five six")});
  StartGateway();
  const RawClient::Response response = Post(
      "/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"max_tokens":2})");
  EXPECT_EQ(Text(JsonOf(response.body), "/choices/0/finish_reason"), "length");
  EXPECT_EQ(Number(JsonOf(response.body), "/usage/completion_tokens"), 2);
}

TEST_F(GatewayTest, GivesLogprobsOfAChat) {
  const std::vector<uint32_t> ids = Ids("the rows");
  router_.SetScript({.tokens = ids, .logprob = -0.25F});
  StartGateway();
  const RawClient::Response response =
      Post("/v1/chat/completions",
           R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":1})");
  ASSERT_EQ(response.status, 200) << response.body;
  const boost::json::value json = JsonOf(response.body);
  const boost::json::array& content =
      json.at("choices").at(0).at("logprobs").at("content").as_array();
  ASSERT_EQ(content.size(), ids.size());
  EXPECT_EQ(content[0].at("logprob").as_double(), -0.25);
  EXPECT_EQ(content[0].at("top_logprobs").as_array().size(), 1U);
  EXPECT_TRUE(router_.requests().at(0).sampling().wants_logprobs());
}

TEST_F(GatewayTest, ScoresAnEchoedPrompt) {
  router_.SetScript({.tokens = Ids("the rows")});
  StartGateway();
  const std::vector<uint32_t> prompt = Ids("The router adds");
  const RawClient::Response response = Post(
      "/v1/completions",
      R"({"prompt":"The router adds","echo":true,"logprobs":1,"max_tokens":1,"add_special_tokens":false})");
  ASSERT_EQ(response.status, 200) << response.body;
  const boost::json::value json = JsonOf(response.body);
  EXPECT_TRUE(Text(json, "/choices/0/text").starts_with("The router adds"));
  const boost::json::value& logprobs = json.at("choices").at(0).at("logprobs");
  const boost::json::array& scores = logprobs.at("token_logprobs").as_array();
  ASSERT_EQ(scores.size(), prompt.size() + 1);
  EXPECT_TRUE(scores[0].is_null());
  EXPECT_EQ(scores[1].to_number<double>(), -1.0);
  EXPECT_EQ(scores.back().to_number<double>(), -0.5);
}

TEST_F(GatewayTest, EchoesWithoutGenerating) {
  router_.SetScript({.tokens = Ids("never shown")});
  StartGateway();
  const RawClient::Response response =
      Post("/v1/completions", R"({"prompt":"The router","echo":true,"max_tokens":0})");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(Text(JsonOf(response.body), "/choices/0/text"), "The router");
  EXPECT_EQ(Number(JsonOf(response.body), "/usage/completion_tokens"), 0);
}

TEST_F(GatewayTest, TakesTokenIdsAsPrompts) {
  router_.SetScript({.tokens = Ids("x")});
  StartGateway();
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":[70,71,72]})").status, 200);
  EXPECT_EQ(router_.requests().at(0).prompt_tokens_size(), 3);
  EXPECT_EQ(router_.requests().at(0).max_tokens(), 16U);
  EXPECT_EQ(Post("/v1/completions", R"({"prompt":[100000]})").status, 400);
}

TEST_F(GatewayTest, CancelsTheCallsOfAClientThatLeaves) {
  router_.SetScript({.tokens = Ids("some text"), .hangs = true});
  StartGateway();
  for (const std::string_view body : {kChat, kChatStream}) {
    auto client = std::make_unique<RawClient>(gateway_->api_address());
    client->Send(
        fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                    body.size(), body));
    if (body == kChatStream) {
      EXPECT_TRUE(client->ReadUntil("assistant"));
    } else {
      for (int i = 0; router_.requests().empty() && i < 100'000; ++i) {
        EXPECT_EQ(Get("/live").status, 200);
      }
    }
    client.reset();
    EXPECT_TRUE(router_.AwaitCancelled(body == kChatStream ? 2 : 1));
  }
}

TEST_F(GatewayTest, MapsErrorsOfARouter) {
  StartGateway();
  const std::vector<std::pair<absl::Status, int>> cases = {
      {absl::ResourceExhaustedError("full"), 429}, {absl::DeadlineExceededError("late"), 504},
      {absl::InvalidArgumentError("bad"), 400},    {absl::InternalError("secret detail"), 500},
      {absl::UnavailableError("no replica"), 503},
  };
  for (const auto& [status, code] : cases) {
    router_.SetScript({.error = status});
    const RawClient::Response response = Post("/v1/chat/completions", kChat);
    EXPECT_EQ(response.status, code) << response.body;
    EXPECT_EQ(response.Header("retry-after").empty(), code != 429 && code != 503);
    EXPECT_EQ(response.body.find("secret"), std::string::npos);
  }
}

TEST_F(GatewayTest, EndsAStreamWithAnErrorAndNoDone) {
  router_.SetScript({.tokens = Ids("the rows"), .error = absl::UnavailableError("lost")});
  StartGateway();
  const RawClient::Response response = Post("/v1/chat/completions", kChatStream);
  EXPECT_EQ(response.status, 200);
  bool done = true;
  const std::vector<boost::json::value> events = EventsOf(response.body, &done);
  EXPECT_FALSE(done);
  ASSERT_FALSE(events.empty());
  EXPECT_TRUE(events.back().as_object().contains("error"));
}

TEST_F(GatewayTest, GoesOnAtAnotherRouterWithTheTokensSentSoFar) {
  const std::string text = "The router adds the rows in the order";
  const FakeRouter::Script script = {.tokens = Ids(text),
                                     .error = absl::UnavailableError("lost"),
                                     .error_tokens = 3,
                                     .serves_resumed = true};
  FakeRouter other;
  router_.SetScript(script);
  other.SetScript(script);
  StartGateway({.served_names = {"m"}}, {router_.address(), other.address()});
  RawClient admin(gateway_->admin_address());
  for (int i = 0; i < 100'000; ++i) {
    if (admin.Fetch("GET", "/status").body.find(R"("ready":false)") == std::string::npos) {
      break;
    }
  }
  const RawClient::Response response =
      Post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}]})");
  ASSERT_EQ(response.status, 200) << response.body;
  EXPECT_EQ(Text(JsonOf(response.body), "/choices/0/message/content"), text);
  ASSERT_EQ(router_.requests().size(), 1U);
  ASSERT_EQ(other.requests().size(), 1U);
  const bool other_resumed = other.requests()[0].resumed_tokens_size() > 0;
  const v1::GenerateRequest first = (other_resumed ? router_ : other).requests()[0];
  const v1::GenerateRequest second = (other_resumed ? other : router_).requests()[0];
  EXPECT_EQ(first.resumed_tokens_size(), 0);
  EXPECT_EQ(second.resumed_tokens_size(), 3);
  EXPECT_EQ(first.sampling().seed(), second.sampling().seed());
}

TEST_F(GatewayTest, AsksForAKey) {
  auto keys = ApiKeys::Parse("alice sha256:" + ToHex(Sha256("sk-good")) + "\n");
  ASSERT_TRUE(keys.ok());
  router_.SetScript({.tokens = Ids("a")});
  StartGateway({.served_names = {"m"}, .keys = *keys});
  for (const char* headers :
       {"", "Authorization: Bearer\r\n", "Authorization: Bearer sk-bad\r\n",
        "Authorization: Basic sk-good\r\n", "Authorization: Bearer  sk-good\r\n",
        "Authorization: Bearer sk-good\r\nAuthorization: Bearer sk-good\r\n",
        "x-api-key: sk-good\r\n"}) {
    const RawClient::Response response = Post("/v1/chat/completions", "{}", headers);
    EXPECT_EQ(response.status, 401) << headers;
    EXPECT_EQ(response.Header("www-authenticate"), "Bearer");
    EXPECT_EQ(Get("/v1/models", headers).status, 401);
    EXPECT_EQ(Get("/nothing", headers).status, 401);
    EXPECT_EQ(Get("/live", headers).status, 200);
  }
  const RawClient::Response good =
      Post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}]})",
           "Authorization: bearer sk-good\r\n");
  EXPECT_EQ(good.status, 200) << good.body;
  EXPECT_EQ(router_.requests().at(0).tenant(), "alice");
}

TEST_F(GatewayTest, RefusesMoreThanItAdmits) {
  router_.SetScript({.tokens = Ids("some"), .hangs = true});
  StartGateway({.served_names = {"m"}, .requests_max = 1});
  RawClient first(gateway_->api_address());
  first.Send(
      fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                  kChatStream.size(), kChatStream));
  EXPECT_TRUE(first.ReadUntil("assistant"));
  const RawClient::Response response = Post("/v1/chat/completions", kChatStream);
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(Text(JsonOf(response.body), "/error/code"), "queue_full");
  EXPECT_FALSE(response.Header("retry-after").empty());
}

TEST_F(GatewayTest, IsNotReadyUntilARouterIs) {
  router_.SetReady(false, "waiting for a placement");
  StartGateway({.served_names = {"m"}}, {}, false);
  for (int i = 0; i < 100'000; ++i) {
    if (Get("/ready").body.find("placement") != std::string::npos) {
      break;
    }
  }
  const RawClient::Response ready = Get("/ready");
  EXPECT_EQ(ready.status, 503);
  EXPECT_NE(ready.body.find("waiting for a placement"), std::string::npos);
  EXPECT_EQ(Get("/live").status, 200);
  const RawClient::Response chat = Post("/v1/completions", R"({"prompt":"x"})");
  EXPECT_EQ(chat.status, 503);
  EXPECT_EQ(Text(JsonOf(chat.body), "/error/code"), "model_loading");
  EXPECT_EQ(chat.Header("retry-after"), "1");
}

TEST_F(GatewayTest, RefusesBadRequests) {
  StartGateway({.served_names = {"m"}, .body_bytes_max = 4096});
  const std::string long_prompt(1200, 'q');
  const std::vector<std::pair<std::string, int>> cases = {
      {"{", 400},
      {"[]", 400},
      {R"({"messages":[]})", 400},
      {R"({"messages":[{"role":"user","content":"x"}],"n":0})", 400},
      {R"({"messages":[{"role":"user","content":"x"}],"model":"other"})", 404},
      {R"({"messages":[{"role":"user","content":"x"}],"max_tokens":100000})", 400},
      {R"({"messages":[{"role":"user","content":")" + long_prompt + R"("}]})", 400},
      {std::string(5000, ' '), 413},
  };
  for (const auto& [body, status] : cases) {
    const RawClient::Response response = Post("/v1/chat/completions", body);
    EXPECT_EQ(response.status, status) << body.substr(0, 80);
    EXPECT_FALSE(Text(JsonOf(response.body), "/error/message").empty());
    EXPECT_EQ(response.body.find("qqq"), std::string::npos);
  }
  const RawClient::Response large = Post(
      "/v1/chat/completions", R"({"messages":[{"role":"user","content":"x"}],"max_tokens":999})");
  EXPECT_EQ(Text(JsonOf(large.body), "/error/code"), "context_length_exceeded");
  EXPECT_TRUE(router_.requests().empty());
}

TEST_F(GatewayTest, KnowsItsRoutesAndMethods) {
  StartGateway();
  EXPECT_EQ(Get("/nothing").status, 404);
  EXPECT_EQ(Text(JsonOf(Get("/v1/embeddings").body), "/error/type"), "invalid_request_error");
  const RawClient::Response wrong = Get("/v1/chat/completions");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.Header("allow"), "POST");
  for (const std::string_view method : {"DELETE", "PUT", "OPTIONS", "TRACE"}) {
    EXPECT_EQ(RawClient(gateway_->api_address()).Fetch(method, "/v1/models").status, 405) << method;
  }
  EXPECT_EQ(RawClient(gateway_->api_address()).Fetch("HEAD", "/v1/models").status, 200);
  EXPECT_EQ(Get("/health").status, 200);
  EXPECT_FALSE(Text(JsonOf(Get("/version").body), "/version").empty());
}

TEST_F(GatewayTest, ListsItsModels) {
  StartGateway();
  const boost::json::value list = JsonOf(Get("/v1/models").body);
  EXPECT_EQ(Text(list, "/data/0/id"), "test-model");
  EXPECT_EQ(Text(list, "/data/1/id"), "alias");
  EXPECT_EQ(Number(list, "/data/0/max_model_len"), FakeRouter::kContextTokens);
  EXPECT_EQ(Text(JsonOf(Get("/v1/models/alias").body), "/id"), "alias");
  EXPECT_EQ(Get("/v1/models/other").status, 404);
}

TEST_F(GatewayTest, TokenizesAndBack) {
  StartGateway();
  const RawClient::Response tokens =
      Post("/tokenize", R"({"prompt":"The router","add_special_tokens":false})");
  ASSERT_EQ(tokens.status, 200) << tokens.body;
  EXPECT_EQ(Number(JsonOf(tokens.body), "/count"), static_cast<int64_t>(Ids("The router").size()));
  const RawClient::Response chat =
      Post("/tokenize", R"({"messages":[{"role":"user","content":"x"}]})");
  EXPECT_EQ(chat.status, 200) << chat.body;
  const RawClient::Response text =
      Post("/detokenize", fmt::format(R"({{"tokens":[{}]}})", fmt::join(Ids("The router"), ",")));
  EXPECT_EQ(Text(JsonOf(text.body), "/prompt"), "The router");
  for (const char* body : {"{", "[]", R"({"tokens":[-1]})", R"({"tokens":[100000]})",
                           R"({"tokens":["a"]})", R"({"tokens":1})"}) {
    EXPECT_EQ(Post("/detokenize", body).status, 400) << body;
  }
}

TEST_F(GatewayTest, RefusesTextThatCannotFitBeforeTokenisingIt) {
  StartGateway();
  const std::string text(2'000'000, 'x');
  for (const auto& [path, body] : std::vector<std::pair<std::string, std::string>>{
           {"/v1/completions", fmt::format(R"({{"prompt":"{}"}})", text)},
           {"/v1/chat/completions",
            fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}}]}})", text)},
           {"/tokenize", fmt::format(R"({{"prompt":"{}"}})", text)}}) {
    const RawClient::Response response = Post(path, body);
    EXPECT_EQ(response.status, 400) << path;
    EXPECT_EQ(Text(JsonOf(response.body), "/error/code"), "context_length_exceeded") << path;
    EXPECT_NE(response.body.find("bytes of text"), std::string::npos) << path;
  }
  std::string ids = "1";
  for (uint32_t i = 0; i < FakeRouter::kContextTokens; ++i) {
    ids += ",1";
  }
  EXPECT_EQ(Text(JsonOf(Post("/detokenize", "{\"tokens\":[" + ids + "]}").body), "/error/code"),
            "context_length_exceeded");
}

TEST(TextError, IsTheRequestsFaultAndNotToBeTriedAgain) {
  const ApiError error = TextError(ResourceExhausted("the template did too much work"), "messages");
  EXPECT_EQ(error.http_status, 400);
  EXPECT_EQ(error.param, "messages");
}

TEST_F(GatewayTest, GivesEveryAnswerARequestId) {
  StartGateway();
  EXPECT_EQ(Get("/v1/models", "x-request-id: abc-123\r\n").Header("x-request-id"), "abc-123");
  const std::string made = Get("/nothing", "x-request-id: bad id\"\r\n").Header("x-request-id");
  EXPECT_TRUE(made.starts_with("req-")) << made;
  EXPECT_NE(made, Get("/nothing").Header("x-request-id"));
}

TEST_F(GatewayTest, CountsWithoutPromptText) {
  router_.SetScript({.tokens = Ids("answer")});
  StartGateway();
  EXPECT_EQ(Post("/v1/chat/completions",
                 R"({"messages":[{"role":"user","content":"canary4711"}],"canary4712":1})")
                .status,
            200);
  EXPECT_EQ(Get("/canary4713").status, 404);
  const std::string metrics = RawClient(gateway_->admin_address()).Fetch("GET", "/metrics").body;
  for (const char* name :
       {"switchyard_requests_total{", "switchyard_time_to_first_token_seconds_count",
        "switchyard_generation_tokens_total", "switchyard_prompt_tokens_total",
        "switchyard_request_duration_seconds_count", "switchyard_requests_running",
        "switchyard_http_connections"}) {
    EXPECT_NE(metrics.find(name), std::string::npos) << name;
  }
  EXPECT_EQ(metrics.find("canary"), std::string::npos);
}

TEST_F(GatewayTest, StopsWithOpenStreams) {
  router_.SetScript({.tokens = Ids("some"), .hangs = true});
  StartGateway();
  RawClient client(gateway_->api_address());
  client.Send(
      fmt::format("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                  kChatStream.size(), kChatStream));
  EXPECT_TRUE(client.ReadUntil("assistant"));
  gateway_->Stop(std::chrono::milliseconds(10));
  EXPECT_TRUE(router_.AwaitCancelled(1));
}

TEST(GatewayOptions, ListensOnLoopbackOnlyWithoutKeys) {
  config::v1::GatewayConfig config;
  config.mutable_common()->set_name("gateway");
  config.set_model_dir("/models/small-moe/");
  config.add_router_addresses("127.0.0.1:1");
  const auto defaults = ReadOptions(config);
  ASSERT_TRUE(defaults.ok()) << defaults.status();
  EXPECT_EQ(defaults->http.address, "127.0.0.1:8080");
  EXPECT_EQ(defaults->api.served_names.at(0), "small-moe");
  config.set_api_address("0.0.0.0:8080");
  const auto open = ReadOptions(config);
  ASSERT_FALSE(open.ok());
  EXPECT_NE(MessageOf(open.status()).find("api_keys_file"), std::string::npos);
  config.set_api_address("nonsense");
  EXPECT_FALSE(ReadOptions(config).ok());
}

TEST(GatewayOptions, NeedsARouter) {
  config::v1::GatewayConfig config;
  config.mutable_common()->set_name("gateway");
  config.set_model_dir("models/demo");
  EXPECT_FALSE(ReadOptions(config).ok());
}

}  // namespace
}  // namespace switchyard
