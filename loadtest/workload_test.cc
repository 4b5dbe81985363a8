#include "loadtest/workload.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/status.h"
#include "libs/openai/request.h"
#include "loadtest/request_body.h"
#include "loadtest/tenants.h"
#include "loadtest/trace.h"

namespace switchyard {
namespace {

using testing::Each;
using testing::HasSubstr;

const ParseLimits kLimits{.vocab_size = 4096};

std::vector<Tenant> OneTenant() { return MakeTenants(1, {}); }

// The prompt's ids, as our own server reads them.
std::vector<uint32_t> IdsOf(const RequestSpec& spec) {
  const auto request = ParseCompletionRequest(RequestBody(spec, {}, "t"), kLimits);
  EXPECT_TRUE(request.ok());
  return std::get<std::vector<uint32_t>>(request.value().prompts.at(0));
}

size_t CommonBeginning(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  const auto [end, other] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(end - a.begin());
}

TEST(RequestBody, IsACompletionThatOurServerTakes) {
  const RequestSpec spec{.prompt_tokens = 50, .output_tokens = 7, .seed = 3};
  const auto request = ParseCompletionRequest(RequestBody(spec, {.model = "m"}, "t"), kLimits);
  ASSERT_TRUE(request.ok());
  const SamplingFields& sampling = request.value().sampling;
  EXPECT_EQ(sampling.model, "m");
  EXPECT_EQ(sampling.max_tokens, 7);
  EXPECT_TRUE(sampling.stream);
  EXPECT_TRUE(sampling.include_usage);
  EXPECT_TRUE(sampling.ignore_eos);
  EXPECT_EQ(sampling.temperature, 1.0);
  EXPECT_TRUE(sampling.seed.has_value());
  EXPECT_EQ(sampling.unknown_field_count, 0U);
  const std::vector<uint32_t> ids = IdsOf(spec);
  EXPECT_EQ(ids.size(), 50U);
  EXPECT_THAT(ids, Each(testing::Ge(300U)));
}

TEST(RequestBody, IsAChatThatOurServerTakes) {
  const BodyOptions options{.endpoint = Endpoint::kChat, .send_user = true};
  const auto request =
      ParseChatRequest(RequestBody({.prompt_tokens = 5}, options, "t\"x"), kLimits);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request.value().message_count, 1U);
  EXPECT_EQ(request.value().sampling.max_tokens, 1);
}

TEST(RequestBody, WritesOneWordPerTokenAsText) {
  const auto request = ParseCompletionRequest(
      RequestBody({.prompt_tokens = 5}, {.prompt_form = PromptForm::kWords}, "t"), kLimits);
  ASSERT_TRUE(request.ok());
  const std::string text = std::get<std::string>(request.value().prompts.at(0));
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 4);
}

TEST(RequestBody, TakesExtraMembersInThePlaceOfItsOwn) {
  const auto extra =
      ExtraMembers::Parse(R"({"temperature": 0.5, "stream_options": null, "top_k": [1, "a\"b"]})");
  ASSERT_TRUE(extra.ok());
  const std::string body = RequestBody({.prompt_tokens = 1}, {.extra = *extra}, "t");
  EXPECT_THAT(body, HasSubstr("\"temperature\":0.5"));
  EXPECT_THAT(body, testing::Not(HasSubstr("\"temperature\":1")));
  EXPECT_THAT(body, testing::Not(HasSubstr("stream_options")));
  EXPECT_THAT(body, HasSubstr(R"("top_k":[1,"a\"b"])"));
  EXPECT_FALSE(ExtraMembers::Parse("[1]").ok());
  EXPECT_FALSE(ExtraMembers::Parse("{").ok());
  EXPECT_FALSE(ExtraMembers::Parse(R"({"a":1,"a":2})").ok());
}

TEST(RequestBody, StaysWithinASmallVocabulary) {
  for (const uint32_t vocab_size : {2U, 3U, 600U, 601U}) {
    EXPECT_LT(FirstTokenId(vocab_size), vocab_size);
  }
}

TEST(MakeRequest, IsAFunctionOfSeedAndIndex) {
  const ShapeOptions shape{.prompt_tokens = *LengthDistribution::Parse("uniform:10:200"),
                           .seed = 5};
  ShapeOptions other = shape;
  other.seed = 6;
  const auto body = [&](const ShapeOptions& options, uint64_t index) {
    return RequestBody(MakeRequest(options, OneTenant(), index), {}, "t");
  };
  EXPECT_EQ(body(shape, 9), body(shape, 9));
  EXPECT_NE(body(shape, 9), body(shape, 10));
  EXPECT_NE(body(shape, 9), body(other, 9));
}

TEST(MakeRequest, SharesPrefixesWithinAGroupOnly) {
  const ShapeOptions shape{
      .prompt_tokens = LengthDistribution(10), .shared_prefix_tokens = 30, .prefix_groups = 2};
  std::map<uint64_t, std::vector<uint32_t>> first_of_group;
  for (uint64_t index = 0; index < 20; ++index) {
    const RequestSpec spec = MakeRequest(shape, OneTenant(), index);
    const std::vector<uint32_t> ids = IdsOf(spec);
    EXPECT_EQ(ids.size(), 40U);
    const auto [it, inserted] = first_of_group.emplace(spec.prefix_seed, ids);
    if (!inserted) {
      EXPECT_GE(CommonBeginning(it->second, ids), 30U);
      EXPECT_LT(CommonBeginning(it->second, ids), 40U);
    }
  }
  ASSERT_EQ(first_of_group.size(), 2U);
  EXPECT_LT(CommonBeginning(first_of_group.begin()->second, first_of_group.rbegin()->second), 5U);
}

TEST(Tenants, TakeTheirShareOfTheRequests) {
  const auto tenants = ParseTenants(
      "# two of "
      "them\n{\"name\":\"big\",\"weight\":3}\n\n{\"name\":\"small\",\"api_key\":\"k\"}\r\n");
  ASSERT_TRUE(tenants.ok());
  EXPECT_EQ((*tenants)[1].api_key, "k");
  int big = 0;
  for (uint64_t index = 0; index < 4000; ++index) {
    big += MakeRequest({}, *tenants, index).tenant == 0 ? 1 : 0;
  }
  EXPECT_NEAR(big, 3000, 150);
  EXPECT_EQ(PickTenant(*tenants, 0.0), 0U);
  EXPECT_EQ(PickTenant(*tenants, 0.9999999), 1U);
}

TEST(Tenants, AreRefusedByLineAndMember) {
  const auto message = [](const char* text) {
    const auto tenants = ParseTenants(text);
    return tenants.ok() ? "" : MessageOf(tenants.status());
  };
  EXPECT_EQ(message(""), "no tenant");
  EXPECT_THAT(message("{\"name\":\"a\"}\nnonsense"), HasSubstr("line 2: not a JSON object"));
  EXPECT_THAT(message("{\"weight\":1}"), HasSubstr("line 1: name"));
  EXPECT_THAT(message("{\"name\":\"a\",\"weight\":-1}"), HasSubstr("weight"));
  EXPECT_THAT(message("{\"name\":\"a\",\"weight\":\"x\"}"), HasSubstr("weight is not a number"));
  EXPECT_THAT(message("{\"name\":\"a\",\"api_key\":\"x\\r\\ny: z\"}"), HasSubstr("api_key"));
  EXPECT_THAT(message("{\"name\":\"a\"}\n{\"name\":\"a\"}"), HasSubstr("line 2"));
}

TEST(Tenants, GetTheKeysInTurn) {
  const std::vector<Tenant> tenants = MakeTenants(3, {"k1", "k2"});
  EXPECT_EQ(tenants[2].name, "tenant-2");
  EXPECT_EQ(tenants[2].api_key, "k1");
}

TEST(Trace, ReadsTimesLengthsAndTenantsInOrder) {
  const auto trace = ParseTrace(
      "{\"arrival_s\": 2, \"input_length\": 5, \"output_length\": 6, \"tenant\": \"b\"}\n"
      "{\"timestamp_ms\": 500, \"input_length\": 7, \"output_length\": 8, \"tenant\": \"new\"}\n"
      "{\"timestamp\": 1000, \"input_length\": 9, \"output_length\": 1}\n",
      {.speed = 2.0}, {{.name = "a"}, {.name = "b", .api_key = "kb"}});
  ASSERT_TRUE(trace.ok());
  ASSERT_EQ(trace->requests.size(), 3U);
  EXPECT_EQ(trace->requests[0].at_s, 0.25);
  EXPECT_EQ(trace->requests[0].prompt_tokens, 7U);
  EXPECT_EQ(trace->requests[0].output_tokens, 8U);
  EXPECT_EQ(trace->tenants[trace->requests[0].tenant].name, "new");
  EXPECT_EQ(trace->requests[1].at_s, 0.5);
  EXPECT_EQ(trace->requests[1].tenant, 0U);
  EXPECT_EQ(trace->tenants[trace->requests[2].tenant].api_key, "kb");
}

TEST(Trace, SharesTokensBySessionPrefixAndBlocks) {
  const auto trace = ParseTrace(
      "{\"timestamp\": 0, \"input_length\": 20, \"output_length\": 1, \"session_id\": 7}\n"
      "{\"timestamp\": 1, \"input_length\": 50, \"output_length\": 1, \"session_id\": 7}\n"
      "{\"timestamp\": 2, \"input_length\": 20, \"output_length\": 1, \"prefix_id\": \"p\", "
      "\"prefix_length\": 10}\n"
      "{\"timestamp\": 3, \"input_length\": 20, \"output_length\": 1, \"prefix_id\": \"p\", "
      "\"prefix_length\": 15}\n"
      "{\"timestamp\": 4, \"input_length\": 20, \"output_length\": 1, \"hash_ids\": [1, 2, 3]}\n"
      "{\"timestamp\": 5, \"input_length\": 20, \"output_length\": 1, \"hash_ids\": [1, 2, 4]}\n",
      {.block_tokens = 8}, OneTenant());
  ASSERT_TRUE(trace.ok());
  std::vector<std::vector<uint32_t>> ids;
  for (const RequestSpec& spec : trace->requests) {
    ids.push_back(IdsOf(spec));
  }
  EXPECT_EQ(CommonBeginning(ids[0], ids[1]), 20U);  // The later turn begins with the earlier one.
  EXPECT_EQ(ids[1].size(), 50U);
  EXPECT_GE(CommonBeginning(ids[2], ids[3]), 10U);
  EXPECT_LT(CommonBeginning(ids[2], ids[3]), 15U);
  EXPECT_GE(CommonBeginning(ids[4], ids[5]), 16U);
  EXPECT_LT(CommonBeginning(ids[4], ids[5]), 20U);
  EXPECT_LT(CommonBeginning(ids[0], ids[2]), 5U);
}

TEST(Trace, IsRefusedByLineAndMember) {
  const auto message = [](const char* text) {
    const auto trace = ParseTrace(text, {}, OneTenant());
    return trace.ok() ? "" : MessageOf(trace.status());
  };
  EXPECT_EQ(message("# nothing\n"), "no request");
  EXPECT_THAT(message("{\"input_length\":1,\"output_length\":1}"), HasSubstr("timestamp_ms"));
  EXPECT_THAT(message("{\"timestamp\":-1,\"input_length\":1,\"output_length\":1}"),
              HasSubstr("timestamp is out of range"));
  EXPECT_THAT(message("{\"timestamp\":1,\"output_length\":1}"), HasSubstr("required"));
  EXPECT_THAT(message("{\"timestamp\":1,\"input_length\":0,\"output_length\":1}"),
              HasSubstr("input_length"));
  EXPECT_THAT(message("{\"timestamp\":1,\"input_length\":1e12,\"output_length\":1}"),
              HasSubstr("input_length"));
  EXPECT_THAT(
      message("{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"prefix_id\":\"x\"}"),
      HasSubstr("prefix_length"));
  EXPECT_THAT(
      message("{\"timestamp\":1,\"input_length\":1,\"output_length\":1,\"hash_ids\":[\"x\"]}"),
      HasSubstr("hash_ids"));
}

TEST(Workload, GivesEachUserItsRequestsOnce) {
  const std::vector<Tenant> tenants = OneTenant();
  const auto workload =
      MakeClosedLoop({.users = 3, .requests_per_user = 2, .ramp_s = 6.0}, {}, tenants);
  std::set<uint64_t> seeds;
  for (const double due : {0.0, 2.0, 4.0}) {
    EXPECT_EQ(workload->NextDue(), due);
    seeds.insert(workload->Take().seed);
  }
  EXPECT_EQ(workload->NextDue(), std::nullopt);
  for (const uint32_t user : {2U, 0U, 1U}) {
    seeds.insert(workload->TakeForUser(user)->seed);
    EXPECT_EQ(workload->TakeForUser(user), std::nullopt);
  }
  EXPECT_EQ(seeds.size(), 6U);
}

TEST(Workload, EndsAfterItsRequests) {
  const std::vector<Tenant> tenants = OneTenant();
  const auto open = MakeOpenLoop({.rate_per_s = 10.0}, {}, tenants, 2);
  const std::optional<double> due = open->NextDue();
  EXPECT_EQ(open->NextDue(), due);  // Asking takes nothing.
  EXPECT_EQ(open->Take().at_s, due);
  EXPECT_GE(open->NextDue(), due);
  open->Take();
  EXPECT_EQ(open->NextDue(), std::nullopt);
  const auto trace = MakeTraceReplay({{.at_s = 1.0}, {.at_s = 2.0}, {.at_s = 3.0}}, 2);
  EXPECT_EQ(trace->Take().at_s, 1.0);
  EXPECT_EQ(trace->Take().at_s, 2.0);
  EXPECT_EQ(trace->NextDue(), std::nullopt);
}

}  // namespace
}  // namespace switchyard
