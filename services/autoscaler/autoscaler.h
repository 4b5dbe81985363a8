#ifndef SWITCHYARD_SERVICES_AUTOSCALER_AUTOSCALER_H_
#define SWITCHYARD_SERVICES_AUTOSCALER_AUTOSCALER_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/app/admin_server.h"
#include "libs/app/config.h"
#include "libs/app/health.h"
#include "libs/app/service_main.h"
#include "libs/control/control_service.h"
#include "libs/metrics/registry.h"
#include "libs/rpc/rpc_server.h"

namespace switchyard {

struct AutoscalerOptions {
  CommonOptions common;
  std::string grpc_address;
  std::string model_dir;
  uint32_t shards_wanted = 1;
  uint32_t replicas_wanted = 1;
  std::string state_file;  // Empty: none.
};

// Checks and defaults; InvalidArgument names the field.
absl::StatusOr<AutoscalerOptions> ReadOptions(const config::v1::AutoscalerConfig& config);

// The placement committed by an earlier process; nullopt without a state file. DataLoss when the
// file cannot be read as one.
absl::StatusOr<std::optional<Placement>> ReadState(const std::string& state_file);

absl::Status WriteState(const std::string& state_file, const Placement& placement);

// Autoscaler is the wiring of an autoscaler process: the control service behind gRPC.
//
// One owner: the main thread.
class Autoscaler final : public ServiceProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ServiceProcess>> Make(const std::string& config_path);
  ~Autoscaler() override;

  absl::Status Start() override;
  void Stop(Duration drain) override;
  Duration drain_max() const override;

 private:
  Autoscaler(AutoscalerOptions options, EpochCoordinator coordinator);

  std::string StatusJson() const;

  const AutoscalerOptions options_;
  SteadyClock clock_;
  Registry registry_;
  Health health_;
  ControlMetrics metrics_;
  ControlService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<AdminServer> admin_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_AUTOSCALER_AUTOSCALER_H_
