#include "services/gateway/gateway.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <unistd.h>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/http/host_port.h"

namespace switchyard {
namespace {

// For cancelled calls to end once the drain is over.
constexpr Duration kCancelTime = std::chrono::seconds(10);

std::string DirectoryName(const std::string& path) {
  std::filesystem::path directory = std::filesystem::path(path).lexically_normal();
  if (!directory.has_filename()) {
    directory = directory.parent_path();
  }
  return directory.filename().string();
}

absl::Status ReadApiAddress(const config::v1::GatewayConfig& config, GatewayOptions* options) {
  options->http.address = ConfigReader::Text(config.api_address(), "127.0.0.1:8080");
  SY_ASSIGN_OR_RETURN(const HostPort api, ParseHostPort(options->http.address));
  if (!config.api_keys_file().empty()) {
    SY_ASSIGN_OR_RETURN(options->api.keys, ApiKeys::Load(config.api_keys_file()));
  } else if (!IsLoopbackHost(api.host)) {
    return InvalidArgument(
        "gateway: api_address {} can be reached from other machines: set api_keys_file, or listen "
        "on 127.0.0.1",
        options->http.address);
  }
  return absl::OkStatus();
}

// Beside connections, files are needed for the admin port, calls to routers, and the log.
void LimitConnections(HttpServerOptions& http) {
  constexpr uint64_t kOtherFilesMax = 256;
  const uint64_t files_max = std::max(RaiseOpenFilesMax(), 2 * kOtherFilesMax);
  if (http.connections_max > files_max - kOtherFilesMax) {
    http.connections_max = files_max - kOtherFilesMax;
    SY_LOG_WARNING(
        "fewer connections than configured, open files are limited files_max={} "
        "connections_max={}",
        files_max, http.connections_max);
  }
}

}  // namespace

absl::StatusOr<GatewayOptions> ReadOptions(const config::v1::GatewayConfig& config) {
  ConfigReader reader("gateway");
  GatewayOptions options;
  options.common = ReadCommon(reader, config.common());
  options.model_dir = reader.Required("model_dir", config.model_dir());
  options.api.served_names.assign(config.served_names().begin(), config.served_names().end());
  options.router_addresses.assign(config.router_addresses().begin(),
                                  config.router_addresses().end());
  options.api.body_bytes_max =
      reader.Uint("body_bytes_max", config.body_bytes_max(), {8388608, 1024, 268435456});
  options.api.requests_max = reader.Uint("requests_max", config.requests_max(), {4096, 1, 1000000});
  options.api.request_timeout = std::chrono::seconds(
      reader.Uint("request_seconds_max", config.request_seconds_max(), {600, 1, 86400}));
  options.http.connections_max =
      reader.Uint("connections_max", config.connections_max(), {8192, 1, 1000000});
  LimitConnections(options.http);
  options.http.threads =
      static_cast<int>(reader.Uint("http_threads", config.http_threads(), {1, 1, 64}));
  options.http.body_bytes_max = options.api.body_bytes_max;
  SY_RETURN_IF_ERROR(reader.status());
  if (options.router_addresses.empty()) {
    return InvalidArgument("gateway: router_addresses: at least one is required");
  }
  if (options.api.served_names.empty()) {
    options.api.served_names.push_back(DirectoryName(options.model_dir));
  }
  SY_RETURN_IF_ERROR(ReadApiAddress(config, &options));
  return options;
}

absl::StatusOr<std::unique_ptr<ServiceProcess>> Gateway::Make(const std::string& config_path) {
  config::v1::GatewayConfig config;
  SY_RETURN_IF_ERROR(LoadConfig(config_path, config));
  SY_ASSIGN_OR_RETURN(GatewayOptions options, ReadOptions(config));
  SY_ASSIGN_OR_RETURN(TextAssets assets, LoadTextAssets(options.model_dir));
  return std::make_unique<Gateway>(std::move(options), std::move(assets));
}

Gateway::Gateway(GatewayOptions options, TextAssets assets)
    : options_(std::move(options)),
      assets_(std::move(assets)),
      metrics_(registry_, options_.api.served_names.front()),
      routers_({.addresses = options_.router_addresses,
                .on_ready = [this](const absl::Status& ready) { OnReady(ready); }},
               metrics_.routers_ready),
      api_(options_.api, assets_, routers_, metrics_, clock_),
      server_(options_.http, registry_, [this](HttpRequest request, ResponseWriter writer) {
        api_.Handle(std::move(request), std::move(writer));
      }) {}

Gateway::~Gateway() { Stop(Duration::zero()); }

void Gateway::OnReady(const absl::Status& ready) {
  if (draining_.load()) {
    health_.SetNotReady(Unavailable("draining"));
  } else if (ready.ok()) {
    health_.SetReady();
  } else {
    health_.SetNotReady(ready);
  }
}

absl::Status Gateway::Start() {
  health_.SetNotReady(Unavailable("waiting for a router"));
  routers_.Start();
  SY_RETURN_IF_ERROR(server_.Start());
  SY_ASSIGN_OR_RETURN(admin_, AdminServer::Start(options_.common.admin_address, registry_, health_,
                                                 [this] { return StatusJson(); }));
  SY_RETURN_IF_ERROR(WriteAddressFile(options_.common.address_file, options_.common.name,
                                      {{"admin", admin_->address()}, {"api", server_.address()}}));
  SY_LOG_INFO("gateway started api={} admin={} model={} keys={} routers={}", server_.address(),
              admin_->address(), options_.api.served_names.front(),
              options_.api.keys.has_value() ? options_.api.keys->size() : 0,
              options_.router_addresses.size());
  return absl::OkStatus();
}

void Gateway::Stop(Duration drain) {
  draining_.store(true);
  health_.SetNotReady(Unavailable("draining"));
  api_.Drain();
  server_.Stop(drain);
  if (!api_.WaitUntilIdle(kCancelTime)) {
    SY_LOG_ERROR("calls did not end after they were cancelled open={}", api_.open_count());
  }
  routers_.Stop();
  admin_.reset();
}

Duration Gateway::drain_max() const {
  return std::chrono::seconds(options_.common.drain_seconds_max);
}

std::string Gateway::StatusJson() const {
  return fmt::format(
      R"({{"name":"{}","role":"gateway","pid":{},"ready":{},"open_requests":{},"connections":{},"routers":{}}})",
      options_.common.name, ::getpid(), api_.ready().ok(), api_.open_count(),
      server_.connection_count(), routers_.StatusJson());
}

}  // namespace switchyard
