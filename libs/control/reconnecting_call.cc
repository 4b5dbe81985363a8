#include "libs/control/reconnecting_call.h"

#include <algorithm>
#include <string>
#include <utility>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"

namespace switchyard {
namespace {

constexpr absl::Duration kBackoffMin = absl::Milliseconds(100);
constexpr absl::Duration kBackoffMax = absl::Seconds(2);
// A call that lived this long was a good one: the next failure starts from the shortest backoff.
constexpr absl::Duration kGoodCall = absl::Seconds(5);

}  // namespace

ReconnectingCall::ReconnectingCall(std::string name, Call call)
    : name_(std::move(name)), call_(std::move(call)) {}

ReconnectingCall::~ReconnectingCall() { Stop(); }

void ReconnectingCall::Start() {
  thread_ = std::thread([this] { Run(); });
}

void ReconnectingCall::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (context_ != nullptr) {
      context_->TryCancel();
    }
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void ReconnectingCall::Run() {
  SetThreadName(name_);
  absl::Duration backoff = kBackoffMin;
  bool failure_logged = false;
  while (true) {
    grpc::ClientContext context;
    if (!Begin(&context)) {
      return;
    }
    const absl::Time begun = absl::Now();
    const absl::Status ended = call_(context);
    {
      absl::MutexLock lock(&mutex_);
      context_ = nullptr;
      if (stopping_) {
        return;
      }
    }
    if (absl::Now() - begun > kGoodCall) {
      backoff = kBackoffMin;
      failure_logged = false;
    }
    if (!failure_logged) {  // Once per outage, not once per try.
      SY_LOG_WARNING("call ended, trying again call={} status={}", name_, MessageOf(ended));
      failure_logged = true;
    }
    if (!SleepOrStop(backoff)) {
      return;
    }
    backoff = std::min(backoff * 2, kBackoffMax);
  }
}

bool ReconnectingCall::Begin(grpc::ClientContext* context) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) {
    return false;
  }
  context_ = context;
  return true;
}

bool ReconnectingCall::SleepOrStop(absl::Duration backoff) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(&stopping_), backoff);
  return !stopping_;
}

}  // namespace switchyard
