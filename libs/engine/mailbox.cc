#include "libs/engine/mailbox.h"

#include <utility>

#include "libs/base/status.h"

namespace switchyard {

absl::Status Mailbox::Post(GenerationRequest request) {
  MutexLock lock(&mutex_);
  if (closed_) {
    return Unavailable("request {}: the router is stopping", request.id);
  }
  if (live_.size() >= live_max_) {
    return ResourceExhausted("request {}: {} requests run or wait already", request.id,
                             live_.size());
  }
  if (!live_.emplace(request.id, false).second) {
    return InvalidArgument("request {}: the id is in use", request.id);
  }
  posted_.push_back(std::move(request));
  return absl::OkStatus();
}

bool Mailbox::Cancel(RequestId id) {
  MutexLock lock(&mutex_);
  const auto found = live_.find(id);
  if (found == live_.end()) {
    return false;
  }
  if (!found->second) {
    found->second = true;
    cancelled_.push_back(id);
  }
  return true;
}

void Mailbox::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

void Mailbox::Take(std::vector<GenerationRequest>& requests, std::vector<RequestId>& cancelled) {
  requests.clear();
  cancelled.clear();
  MutexLock lock(&mutex_);
  requests.swap(posted_);
  cancelled.swap(cancelled_);
}

void Mailbox::Remove(RequestId id) {
  MutexLock lock(&mutex_);
  const auto found = live_.find(id);
  if (found != live_.end()) {
    if (found->second) {
      std::erase(cancelled_, id);
    }
    live_.erase(found);
  }
}

size_t Mailbox::live_count() const {
  MutexLock lock(&mutex_);
  return live_.size();
}

}  // namespace switchyard
