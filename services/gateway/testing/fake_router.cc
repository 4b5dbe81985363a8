#include "services/gateway/testing/fake_router.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/time.h"

#include "libs/base/check.h"
#include "libs/rpc/status_convert.h"

namespace switchyard {

// Writes its events one after another; then finishes, or waits to be cancelled.
class FakeRouter::Stream final : public grpc::ServerWriteReactor<v1::GenerateEvent> {
 public:
  Stream(FakeRouter& router, std::vector<v1::GenerateEvent> events, bool hangs, absl::Status status)
      : router_(router), events_(std::move(events)), hangs_(hangs), status_(std::move(status)) {
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      next_ = events_.size();
    }
    WriteNext();
  }

  void OnCancel() override {
    router_.CountCancelled();
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    FinishIfOver();
  }

  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    if (next_ < events_.size()) {
      StartWrite(&events_[next_++]);
      return;
    }
    absl::MutexLock lock(&mutex_);
    written_ = true;
    FinishIfOver();
  }

  void FinishIfOver() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (written_ && !finished_ && (!hangs_ || cancelled_)) {
      finished_ = true;
      Finish(cancelled_ ? grpc::Status::CANCELLED : ToGrpc(status_));
    }
  }

  FakeRouter& router_;
  std::vector<v1::GenerateEvent> events_;
  const bool hangs_;
  const absl::Status status_;
  size_t next_ = 0;
  absl::Mutex mutex_;
  bool written_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

FakeRouter::FakeRouter() {
  auto server = RpcServer::Start({.address = "127.0.0.1:0"}, {this});
  SY_CHECK(server.ok());
  server_ = *std::move(server);
}

FakeRouter::~FakeRouter() { server_->Stop(std::chrono::milliseconds(0)); }

void FakeRouter::SetScript(Script script) {
  absl::MutexLock lock(&mutex_);
  script_ = std::move(script);
}

void FakeRouter::SetReady(bool ready, const std::string& why) {
  absl::MutexLock lock(&mutex_);
  ready_ = ready;
  not_ready_reason_ = why;
}

std::vector<v1::GenerateRequest> FakeRouter::requests() const {
  absl::MutexLock lock(&mutex_);
  return requests_;
}

bool FakeRouter::AwaitCancelled(int count) const {
  absl::MutexLock lock(&mutex_);
  const auto enough = [this, count]()
                          ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return cancelled_ >= count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(10));
}

void FakeRouter::CountCancelled() {
  absl::MutexLock lock(&mutex_);
  ++cancelled_;
}

grpc::ServerWriteReactor<v1::GenerateEvent>* FakeRouter::Generate(
    grpc::CallbackServerContext* /*context*/, const v1::GenerateRequest* request) {
  absl::MutexLock lock(&mutex_);
  requests_.push_back(*request);
  std::vector<v1::GenerateEvent> events;
  if (request->prompt_logprobs()) {
    v1::GenerateEvent& event = events.emplace_back();
    for (int i = 1; i < request->prompt_tokens_size(); ++i) {
      v1::TokenOutput& score = *event.add_prompt();
      score.set_token(request->prompt_tokens(i));
      score.set_logprob(-static_cast<float>(i));
    }
  }
  const auto first = static_cast<size_t>(request->resumed_tokens_size());
  const bool resumed = first > 0 && script_.serves_resumed;
  const bool fails = script_.error.has_value() && !resumed;
  const bool hangs = script_.hangs && !resumed;
  size_t last = std::min<size_t>(script_.tokens.size(), request->max_tokens());
  last = fails ? std::min(last, script_.error_tokens) : last;
  for (size_t i = first; i < last; ++i) {
    v1::TokenOutput& output = *events.emplace_back().add_tokens();
    output.set_token(script_.tokens[i]);
    output.set_logprob(script_.logprob);
    v1::TokenLogprob& top = *output.add_top();
    top.set_token(script_.tokens[i]);
    top.set_logprob(script_.logprob);
  }
  if (!hangs && !fails) {
    v1::Finish& finish = *events.emplace_back().mutable_finish();
    finish.set_reason(last == request->max_tokens() ? v1::Finish::REASON_LENGTH : script_.finish);
    finish.set_cached_prompt_tokens(2);
  }
  return new Stream(*this, std::move(events), hangs, fails ? *script_.error : absl::OkStatus());
}

grpc::ServerUnaryReactor* FakeRouter::Describe(grpc::CallbackServerContext* context,
                                               const v1::DescribeRequest* /*request*/,
                                               v1::DescribeResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    response->set_ready(ready_);
    response->set_not_ready_reason(not_ready_reason_);
  }
  response->set_context_tokens_max(kContextTokens);
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace switchyard
