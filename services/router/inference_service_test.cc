// Generate and Describe over a real gRPC connection, with an engine and shards in this process.

#include "services/router/inference_service.h"

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "libs/engine/testing/inproc_cluster.h"
#include "libs/model/testing/tiny_checkpoint.h"
#include "libs/rpc/channel.h"
#include "libs/rpc/rpc_server.h"

namespace switchyard {
namespace {

using ::testing::ElementsAreArray;
using ::testing::SizeIs;

constexpr Duration kDrainMax = std::chrono::seconds(20);

class InferenceServiceTest : public testing::Test {
 protected:
  InferenceServiceTest()
      : cluster_({.model_dir = model_.dir(), .shard_count = 2}),
        metrics_(registry_),
        streams_(clock_, metrics_) {
    EngineOptions options;
    options.scheduler.sequences_max = 4;
    options.scheduler.waiting_max = 2;
    options.scheduler.block_tokens = 8;
    options.cache_blocks = 64;
    options.cache_dtype = Dtype::kF32;
    EngineLoop& engine = cluster_.StartEngine(options, &streams_);
    step_ = std::thread([&engine] { engine.Run(); });
    service_ = std::make_unique<InferenceService>(
        ServedModel{.digest = cluster_.checkpoint().digest(), .numerics_id = "n", .vocab_size = 64},
        engine, streams_, clock_, metrics_);
    server_ = RpcServer::Start({.address = "127.0.0.1:0"}, {service_.get()}).value();
    stub_ = v1::Inference::NewStub(MakeChannel(server_->address()));
  }

  ~InferenceServiceTest() override {
    cluster_.engine().Stop();
    step_.join();
    server_->Stop(std::chrono::seconds(5));
  }

  static v1::GenerateRequest Greedy(uint32_t max_tokens) {
    v1::GenerateRequest request;
    for (const uint32_t token : {3, 1, 4, 1, 5}) {
      request.add_prompt_tokens(token);
    }
    request.set_max_tokens(max_tokens);
    return request;
  }

  struct Answer {
    std::vector<uint32_t> tokens;
    std::vector<v1::Finish> finishes;
    int prompt_scores = 0;
    uint32_t cached_prompt_tokens = 0;
    grpc::Status status;
  };

  Answer Generate(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    Answer answer;
    v1::GenerateEvent event;
    while (reader->Read(&event)) {
      EXPECT_THAT(answer.finishes, SizeIs(0)) << "an event after the last";
      answer.prompt_scores += event.prompt_size();
      for (const v1::TokenOutput& token : event.tokens()) {
        answer.tokens.push_back(token.token());
      }
      answer.cached_prompt_tokens += event.cached_prompt_tokens();
      if (event.has_finish()) {
        answer.finishes.push_back(event.finish());
      }
    }
    answer.status = reader->Finish();
    return answer;
  }

  TinyCheckpoint model_;
  InprocCluster cluster_;
  SteadyClock clock_;
  Registry registry_;
  InferenceMetrics metrics_;
  GenerateStreams streams_;
  std::thread step_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

TEST_F(InferenceServiceTest, StreamsTokensThenTheFinish) {
  const Answer whole = Generate(Greedy(12));
  EXPECT_TRUE(whole.status.ok()) << whole.status.error_message();
  EXPECT_THAT(whole.tokens, SizeIs(12));
  ASSERT_THAT(whole.finishes, SizeIs(1));
  EXPECT_EQ(whole.finishes[0].reason(), v1::Finish::REASON_LENGTH);

  v1::GenerateRequest moved = Greedy(12);
  for (int i = 0; i < 4; ++i) {
    moved.add_resumed_tokens(whole.tokens[static_cast<size_t>(i)]);
  }
  moved.add_stop_tokens(whole.tokens[11]);
  moved.set_min_tokens(11);
  const Answer rest = Generate(moved);
  EXPECT_TRUE(rest.status.ok());
  EXPECT_FALSE(rest.tokens.empty());
  EXPECT_EQ(metrics_.requests_ok.value(), 2.0);
}

TEST_F(InferenceServiceTest, ReportsCachedPromptTokensWithinATenantAndSalt) {
  v1::GenerateRequest request = Greedy(3);
  for (uint32_t token = 0; token < 15; ++token) {
    request.add_prompt_tokens(token);
  }
  request.set_tenant("alice");
  const auto cached_tokens = [&] {
    const Answer answer = Generate(request);
    EXPECT_THAT(answer.finishes, SizeIs(1));
    const uint32_t at_end = answer.finishes.empty() ? 0 : answer.finishes[0].cached_prompt_tokens();
    EXPECT_EQ(answer.cached_prompt_tokens, at_end) << "said with the first token, too";
    return at_end;
  };
  EXPECT_EQ(cached_tokens(), 0U);
  EXPECT_EQ(cached_tokens(), 16U) << "two blocks of eight; the last tokens are computed";
  request.set_cache_salt("s");
  EXPECT_EQ(cached_tokens(), 0U);
  EXPECT_EQ(cached_tokens(), 16U);
  request.clear_cache_salt();
  request.set_tenant("bob");
  EXPECT_EQ(cached_tokens(), 0U);
  request.set_tenant("alice");
  EXPECT_EQ(cached_tokens(), 16U);
  request.set_prompt_logprobs(true);
  EXPECT_EQ(cached_tokens(), 0U) << "every position is needed";
}

TEST(PrefixScope, IsTheTenantsOwnUnlessShared) {
  v1::GenerateRequest one;
  one.set_tenant("ab");
  one.set_cache_salt("c");
  v1::GenerateRequest other;
  other.set_tenant("a");
  other.set_cache_salt("bc");
  EXPECT_NE(PrefixScopeOf(one, false), PrefixScopeOf(other, false));
  EXPECT_NE(PrefixScopeOf(one, true), PrefixScopeOf(other, true));
  other.set_cache_salt("c");
  EXPECT_NE(PrefixScopeOf(one, false), PrefixScopeOf(other, false));
  EXPECT_EQ(PrefixScopeOf(one, true), PrefixScopeOf(other, true));
}

TEST_F(InferenceServiceTest, ScoresThePromptWhenAsked) {
  v1::GenerateRequest request = Greedy(1);
  request.set_prompt_logprobs(true);
  request.mutable_sampling()->set_wants_logprobs(true);
  request.mutable_sampling()->set_top_logprobs(3);
  const Answer answer = Generate(request);
  EXPECT_EQ(answer.prompt_scores, 4);
  EXPECT_THAT(answer.tokens, SizeIs(1));
}

TEST_F(InferenceServiceTest, AnswersBadRequestsWithInvalidArgument) {
  v1::GenerateRequest no_prompt = Greedy(4);
  no_prompt.clear_prompt_tokens();
  v1::GenerateRequest out_of_vocabulary = Greedy(4);
  out_of_vocabulary.add_prompt_tokens(64);
  v1::GenerateRequest too_long = Greedy(4);
  for (int i = 0; i < 600; ++i) {
    too_long.add_prompt_tokens(1);
  }
  v1::GenerateRequest bias = Greedy(4);
  bias.mutable_sampling()->add_logit_bias_token(1);
  for (const v1::GenerateRequest& request : {no_prompt, out_of_vocabulary, too_long, bias}) {
    const Answer answer = Generate(request);
    EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_FALSE(answer.status.error_message().empty());
  }
  EXPECT_EQ(metrics_.requests_refused.value(), 4.0);
}

TEST_F(InferenceServiceTest, CancellingTheCallFreesItsBlocks) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Greedy(480));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(streams_.AwaitEmpty(kDrainMax));
  const Answer after = Generate(Greedy(2));
  EXPECT_TRUE(after.status.ok());
  v1::DescribeResponse description;
  grpc::ClientContext describe;
  ASSERT_TRUE(stub_->Describe(&describe, {}, &description).ok());
  EXPECT_LE(description.running(), 1U);
  EXPECT_EQ(cluster_.engine().live_count(), 0U);
}

TEST_F(InferenceServiceTest, DescribesWhatItServes) {
  ASSERT_TRUE(Generate(Greedy(1)).status.ok());  // So the shards are connected.
  v1::DescribeResponse description;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Describe(&context, {}, &description).ok());
  EXPECT_TRUE(description.ready()) << description.not_ready_reason();
  EXPECT_EQ(description.model_digest(), cluster_.checkpoint().digest());
  EXPECT_EQ(description.vocab_size(), 64U);
  EXPECT_EQ(description.context_tokens_max(), 512U);
  EXPECT_GE(description.epoch(), 1U);
  EXPECT_EQ(description.total_blocks(), 64U);
}

TEST_F(InferenceServiceTest, WhileDrainingOpenStreamsEndAndNewOnesAreRefused) {
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Greedy(60));
  v1::GenerateEvent event;
  ASSERT_TRUE(reader->Read(&event));
  service_->Drain();
  EXPECT_EQ(Generate(Greedy(2)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  size_t token_count = static_cast<size_t>(event.tokens_size());
  while (reader->Read(&event)) {
    token_count += static_cast<size_t>(event.tokens_size());
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(token_count, 60U);
  EXPECT_TRUE(streams_.AwaitEmpty(kDrainMax));
}

}  // namespace
}  // namespace switchyard
