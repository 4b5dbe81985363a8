#ifndef SWITCHYARD_SERVICES_GATEWAY_GATEWAY_H_
#define SWITCHYARD_SERVICES_GATEWAY_GATEWAY_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/app/admin_server.h"
#include "libs/app/config.h"
#include "libs/app/health.h"
#include "libs/app/service_main.h"
#include "libs/http/http_server.h"
#include "libs/metrics/registry.h"
#include "libs/text/text_assets.h"
#include "services/gateway/api.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/router_pool.h"

namespace switchyard {

struct GatewayOptions {
  CommonOptions common;
  std::string model_dir;
  std::vector<std::string> router_addresses;
  ApiOptions api;
  HttpServerOptions http;
};

// Checks, defaults, and the key file; InvalidArgument names the field. Without keys only a loopback
// address is accepted.
absl::StatusOr<GatewayOptions> ReadOptions(const config::v1::GatewayConfig& config);

// Gateway is the wiring of a gateway process: HTTP in front, routers behind, the API between.
//
// One owner: the main thread.
class Gateway final : public ServiceProcess {
 public:
  static absl::StatusOr<std::unique_ptr<ServiceProcess>> Make(const std::string& config_path);

  Gateway(GatewayOptions options, TextAssets assets);
  ~Gateway() override;

  absl::Status Start() override;
  void Stop(Duration drain) override;
  Duration drain_max() const override;

  // Bound "host:port", after Start.
  const std::string& api_address() const { return server_.address(); }

  const std::string& admin_address() const { return admin_->address(); }

 private:
  std::string StatusJson() const;
  void OnReady(const absl::Status& ready);

  const GatewayOptions options_;
  const TextAssets assets_;
  SteadyClock clock_;
  Registry registry_;
  std::atomic<bool> draining_ = false;
  Health health_;
  GatewayMetrics metrics_;
  RouterPool routers_;
  Api api_;
  HttpServer server_;
  std::unique_ptr<AdminServer> admin_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_GATEWAY_H_
