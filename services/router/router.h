#ifndef SWITCHYARD_SERVICES_ROUTER_ROUTER_H_
#define SWITCHYARD_SERVICES_ROUTER_ROUTER_H_

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/app/admin_server.h"
#include "libs/app/health.h"
#include "libs/app/service_main.h"
#include "libs/control/placement_watcher.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/engine/engine_loop.h"
#include "libs/engine/engine_metrics.h"
#include "libs/kernels/kernels.h"
#include "libs/metrics/registry.h"
#include "libs/model/checkpoint.h"
#include "libs/rpc/rpc_server.h"
#include "libs/transport/transport.h"
#include "services/router/inference_service.h"
#include "services/router/router_options.h"

namespace switchyard {

// Router is the wiring of a router process: thread "step" runs the engine and owns the transport,
// the watcher's thread posts placements, gRPC's threads post requests.
//
// One owner: the main thread.
class Router final : public ServiceProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ServiceProcess>> Make(const std::string& config_path);
  ~Router() override;

  absl::Status Start() override;
  void Stop(Duration drain) override;
  Duration drain_max() const override;

 private:
  Router(RouterOptions options, Checkpoint checkpoint);

  absl::Status LoadWeights();
  absl::Status StartEngine();
  absl::Status StartServers();
  // Of the servers that listen: the admin server while weights are loaded, then all.
  absl::Status WriteAddresses() const;
  void OnReadyChanged(const absl::Status& ready);
  std::string StatusJson() const;

  const RouterOptions options_;
  const Checkpoint checkpoint_;
  RouterWeights weights_;  // Empty until Start().
  SteadyClock clock_;
  Registry registry_;
  Health health_;
  std::atomic<bool> draining_ = false;
  DispatchMetrics dispatch_metrics_;
  EngineMetrics engine_metrics_;
  InferenceMetrics inference_metrics_;
  Gauge load_progress_ratio_;
  GenerateStreams streams_;
  ComputePool pool_;
  std::unique_ptr<Transport> transport_;  // This and the next two: the step thread, once started.
  std::unique_ptr<Dispatcher> dispatcher_;
  std::unique_ptr<EngineLoop> engine_;
  std::atomic<bool> engine_started_ = false;  // Set once: from then on any thread may ask engine_.
  std::string transport_description_;
  std::thread step_thread_;
  std::unique_ptr<PlacementWatcher> watcher_;
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<AdminServer> admin_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_ROUTER_ROUTER_H_
