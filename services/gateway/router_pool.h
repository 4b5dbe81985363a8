#ifndef SWITCHYARD_SERVICES_GATEWAY_ROUTER_POOL_H_
#define SWITCHYARD_SERVICES_GATEWAY_ROUTER_POOL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "libs/base/clock.h"
#include "libs/metrics/registry.h"
#include "services/gateway/router_client.h"

namespace switchyard {

// RouterPool knows the routers, how loaded they are, and whether they can serve. A control thread
// asks each one to describe itself, often while there is work or none is ready, rarely otherwise.
//
// Any thread. Start and Stop belong to one owner; all calls are over before Stop.
class RouterPool {
 public:
  struct Options {
    std::vector<std::string> addresses;
    Duration busy_interval = std::chrono::milliseconds(250);
    Duration idle_interval = std::chrono::seconds(1);
    Duration describe_timeout = std::chrono::seconds(1);
    // Told after each description whether requests can be served; on a gRPC thread.
    std::function<void(const absl::Status& ready)> on_ready = [](const absl::Status&) {};
  };

  RouterPool(Options options, Gauge routers_ready);
  RouterPool(const RouterPool&) = delete;
  RouterPool& operator=(const RouterPool&) = delete;
  ~RouterPool();

  void Start();
  void Stop();

  // Unavailable, with the reason, until a router can take requests.
  absl::Status ready() const;

  // Prompt and answer at most; what the most generous ready router says, 0 when none ever was
  // ready.
  uint32_t context_tokens_max() const;

  // The router for a request; nothing when none is ready. `excluded` was tried already.
  std::optional<size_t> Pick(uint64_t affinity_key, std::optional<size_t> excluded) const;

  RouterClient& client(size_t router) { return *routers_[router]->client; }

  void OnCallStarted(size_t router);
  // Unavailable takes the router out until it describes itself again.
  void OnCallEnded(size_t router, const absl::Status& status);

  std::string StatusJson() const;

 private:
  struct Router {
    std::unique_ptr<RouterClient> client;
    absl::Status ready;       // Why not, while it is not.
    std::string sequence_id;  // Model digest and numerics id, as last described.
    uint32_t context_tokens_max = 0;
    size_t described_load = 0;
    size_t open_calls = 0;  // Of this gateway.
    bool describing = false;
  };

  void Run();
  void DescribeAll();
  void OnDescribed(size_t router, absl::StatusOr<v1::DescribeResponse> response);
  // OK, or why streams must not move between this router and those that serve now.
  absl::Status CheckAlike(const Router& router, const std::string& sequence_id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetReady(Router& router, absl::Status ready) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Duration IntervalLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NoneDescribing() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  Gauge routers_ready_;
  mutable absl::Mutex mutex_;
  std::vector<std::unique_ptr<Router>> routers_;  // Fixed; the values' fields but client by mutex_.
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_ROUTER_POOL_H_
