#include "libs/engine/generation.h"

#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/base/status.h"
#include "libs/engine/mailbox.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr GenerationBounds kBounds{.vocab_size = 10, .context_tokens_max = 8};

GenerationRequest Valid(uint64_t id = 1) {
  return {.id = RequestId(id), .prompt = {1, 2, 3}, .max_tokens = 4};
}

TEST(ValidateRequest, AcceptsWhatFits) {
  EXPECT_TRUE(ValidateRequest(Valid(), kBounds).ok());
  GenerationRequest scored = Valid();
  scored.prompt.assign(8, 1);
  scored.max_tokens = 0;
  EXPECT_TRUE(ValidateRequest(scored, kBounds).ok());
}

TEST(ValidateRequest, NamesTheFieldThatDoesNotFit) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::pair<std::string, std::function<void(GenerationRequest&)>>> cases = {
      {"prompt", [](GenerationRequest& r) { r.prompt.clear(); }},
      {"prompt", [](GenerationRequest& r) { r.prompt.push_back(10); }},
      {"leave no room", [](GenerationRequest& r) { r.prompt.assign(8, 1); }},
      {"exceed", [](GenerationRequest& r) { r.resumed.assign(6, 1); }},
      {"resumed_tokens", [](GenerationRequest& r) { r.resumed = {11}; }},
      {"stop_tokens", [](GenerationRequest& r) { r.stop_tokens = {10}; }},
      {"stop_tokens", [](GenerationRequest& r) { r.stop_tokens.assign(65, 1); }},
      {"temperature", [](GenerationRequest& r) { r.sampling.temperature = -1; }},
      {"temperature", [nan](GenerationRequest& r) { r.sampling.temperature = nan; }},
      {"top_p", [](GenerationRequest& r) { r.sampling.top_p = 1.5F; }},
      {"min_p", [](GenerationRequest& r) { r.sampling.min_p = -0.1F; }},
      {"presence_penalty", [nan](GenerationRequest& r) { r.sampling.presence_penalty = nan; }},
      {"frequency_penalty", [](GenerationRequest& r) { r.sampling.frequency_penalty = 1e9F; }},
      {"repetition_penalty", [](GenerationRequest& r) { r.sampling.repetition_penalty = 0; }},
      {"top_logprobs", [](GenerationRequest& r) { r.sampling.logprobs = 21; }},
      {"logit_bias", [](GenerationRequest& r) { r.sampling.logit_bias = {{10, 1.0F}}; }},
      {"logit_bias", [nan](GenerationRequest& r) { r.sampling.logit_bias = {{1, nan}}; }},
  };
  for (const auto& [field, breaks] : cases) {
    GenerationRequest request = Valid();
    breaks(request);
    const absl::Status status = ValidateRequest(request, kBounds);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(MessageOf(status), HasSubstr(field));
  }
}

TEST(Mailbox, BoundsLiveRequestsUntilTheyAreRemoved) {
  Mailbox mailbox(2);
  EXPECT_TRUE(mailbox.Post(Valid(1)).ok());
  EXPECT_EQ(mailbox.Post(Valid(1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(mailbox.Post(Valid(2)).ok());
  EXPECT_EQ(mailbox.Post(Valid(3)).code(), absl::StatusCode::kResourceExhausted);
  mailbox.Remove(RequestId(1));
  EXPECT_TRUE(mailbox.Post(Valid(3)).ok());
  EXPECT_EQ(mailbox.live_count(), 2U);
  mailbox.Close();
  mailbox.Remove(RequestId(2));
  EXPECT_EQ(mailbox.Post(Valid(4)).code(), absl::StatusCode::kUnavailable);
}

TEST(Mailbox, HandsACancellationOverOnceAndOnlyForLiveRequests) {
  Mailbox mailbox(4);
  std::vector<GenerationRequest> requests;
  std::vector<RequestId> cancelled;
  EXPECT_FALSE(mailbox.Cancel(RequestId(1)));
  ASSERT_TRUE(mailbox.Post(Valid(1)).ok());
  EXPECT_TRUE(mailbox.Cancel(RequestId(1)));
  EXPECT_TRUE(mailbox.Cancel(RequestId(1)));
  mailbox.Take(requests, cancelled);
  EXPECT_EQ(requests.size(), 1U);
  EXPECT_THAT(cancelled, ElementsAre(RequestId(1)));
  mailbox.Take(requests, cancelled);
  EXPECT_THAT(requests, IsEmpty());
  EXPECT_THAT(cancelled, IsEmpty());
}

TEST(Mailbox, ForgetsTheCancellationOfARequestThatFinishedFirst) {
  Mailbox mailbox(4);
  ASSERT_TRUE(mailbox.Post(Valid(1)).ok());
  mailbox.Cancel(RequestId(1));
  mailbox.Remove(RequestId(1));
  std::vector<GenerationRequest> requests;
  std::vector<RequestId> cancelled;
  mailbox.Take(requests, cancelled);
  EXPECT_THAT(cancelled, IsEmpty());
}

}  // namespace
}  // namespace switchyard
