#include "services/gateway/router_pool.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/time/time.h"

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"
#include "libs/frontend/router_picker.h"

namespace switchyard {

RouterPool::RouterPool(Options options, Gauge routers_ready)
    : options_(std::move(options)), routers_ready_(routers_ready) {
  for (const std::string& address : options_.addresses) {
    auto router = std::make_unique<Router>();
    router->client = std::make_unique<RouterClient>(address);
    router->ready = Unavailable("router {} has not answered yet", address);
    routers_.push_back(std::move(router));
  }
}

RouterPool::~RouterPool() { Stop(); }

void RouterPool::Start() {
  thread_ = std::thread([this] {
    SetThreadName("control");
    Run();
  });
}

void RouterPool::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void RouterPool::Run() {
  while (true) {
    DescribeAll();
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(IntervalLocked()))) {
      mutex_.Await(absl::Condition(this, &RouterPool::NoneDescribing));
      return;
    }
  }
}

void RouterPool::DescribeAll() {
  for (size_t i = 0; i < routers_.size(); ++i) {
    {
      absl::MutexLock lock(&mutex_);
      if (std::exchange(routers_[i]->describing, true)) {
        continue;
      }
    }
    routers_[i]->client->Describe(options_.describe_timeout,
                                  [this, i](absl::StatusOr<v1::DescribeResponse> response) {
                                    OnDescribed(i, std::move(response));
                                  });
  }
}

bool RouterPool::NoneDescribing() const {
  return std::ranges::none_of(routers_, [](const auto& router) { return router->describing; });
}

void RouterPool::OnDescribed(size_t index, absl::StatusOr<v1::DescribeResponse> response) {
  absl::Status ready;
  if (!response.ok()) {
    ready = Unavailable("router {}: {}", options_.addresses[index], MessageOf(response.status()));
  } else if (!response->ready()) {
    ready = Unavailable("router {}: {}", options_.addresses[index], response->not_ready_reason());
  }
  bool changed = false;
  {
    absl::MutexLock lock(&mutex_);
    Router& router = *routers_[index];
    if (ready.ok()) {
      router.sequence_id = response->model_digest() + " " + response->numerics_id();
      ready = CheckAlike(router, router.sequence_id);
    }
    changed = router.ready.ok() != ready.ok();
    SetReady(router, ready);
    if (response.ok()) {
      router.context_tokens_max = response->context_tokens_max();
      router.described_load = response->running();
    }
  }
  if (changed && ready.ok()) {
    SY_LOG_INFO("router ready address={} context_tokens_max={}", options_.addresses[index],
                response->context_tokens_max());
  } else if (changed) {
    SY_LOG_WARNING("router not ready error=\"{}\"", MessageOf(ready));
  }
  options_.on_ready(this->ready());
  absl::MutexLock lock(&mutex_);
  routers_[index]->describing = false;  // The last thing: Stop waits for it.
}

absl::Status RouterPool::CheckAlike(const Router& router, const std::string& sequence_id) const {
  for (size_t i = 0; i < routers_.size(); ++i) {
    const Router& other = *routers_[i];
    if (&other != &router && other.ready.ok() && other.sequence_id != sequence_id) {
      return Unavailable("router serves another model or rounds differently than router {}",
                         options_.addresses[i]);
    }
  }
  return absl::OkStatus();
}

void RouterPool::SetReady(Router& router, absl::Status ready) {
  router.ready = std::move(ready);
  routers_ready_.Set(static_cast<double>(
      std::ranges::count_if(routers_, [](const auto& each) { return each->ready.ok(); })));
}

Duration RouterPool::IntervalLocked() const {
  const bool busy = std::ranges::any_of(
      routers_, [](const auto& router) { return router->open_calls > 0 || !router->ready.ok(); });
  return busy ? options_.busy_interval : options_.idle_interval;
}

absl::Status RouterPool::ready() const {
  absl::MutexLock lock(&mutex_);
  absl::Status why = Unavailable("no router is configured");
  for (const auto& router : routers_) {
    if (router->ready.ok()) {
      return absl::OkStatus();
    }
    why = router->ready;
  }
  return why;
}

uint32_t RouterPool::context_tokens_max() const {
  absl::MutexLock lock(&mutex_);
  uint32_t most = 0;
  for (const auto& router : routers_) {
    most = std::max(most, router->context_tokens_max);
  }
  return most;
}

std::optional<size_t> RouterPool::Pick(uint64_t affinity_key,
                                       std::optional<size_t> excluded) const {
  std::vector<RouterView> views;
  views.reserve(routers_.size());
  {
    absl::MutexLock lock(&mutex_);
    for (size_t i = 0; i < routers_.size(); ++i) {
      const Router& router = *routers_[i];
      views.push_back({.usable = router.ready.ok() && excluded != i,
                       .identity = std::hash<std::string>()(options_.addresses[i]),
                       .load = std::max(router.described_load, router.open_calls)});
    }
  }
  return PickRouter(views, affinity_key);
}

void RouterPool::OnCallStarted(size_t router) {
  absl::MutexLock lock(&mutex_);
  ++routers_[router]->open_calls;
}

void RouterPool::OnCallEnded(size_t index, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  Router& router = *routers_[index];
  --router.open_calls;
  if (absl::IsUnavailable(status)) {
    SetReady(router, Unavailable("router {}: lost", options_.addresses[index]));
  }
}

std::string RouterPool::StatusJson() const {
  absl::MutexLock lock(&mutex_);
  std::string json = "[";
  for (size_t i = 0; i < routers_.size(); ++i) {
    const Router& router = *routers_[i];
    json += fmt::format(R"({}{{"address":"{}","ready":{},"open_calls":{},"load":{}}})",
                        i == 0 ? "" : ",", options_.addresses[i], router.ready.ok(),
                        router.open_calls, router.described_load);
  }
  return json + "]";
}

}  // namespace switchyard
