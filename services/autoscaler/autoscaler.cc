#include "services/autoscaler/autoscaler.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "google/protobuf/util/json_util.h"

#include "libs/base/file.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/control/placement_convert.h"
#include "libs/model/checkpoint.h"

namespace switchyard {
namespace {

constexpr size_t kStateBytesMax = 256 << 20;

}  // namespace

absl::StatusOr<AutoscalerOptions> ReadOptions(const config::v1::AutoscalerConfig& config) {
  ConfigReader reader("autoscaler");
  AutoscalerOptions options{
      .common = ReadCommon(reader, config.common()),
      .grpc_address = ConfigReader::Text(config.grpc_address(), "127.0.0.1:0"),
      .model_dir = reader.Required("model_dir", config.model_dir()),
      .shards_wanted = reader.Uint("shards_wanted", config.shards_wanted(),
                                   {.default_value = 1, .min = 1, .max = 4096}),
      .replicas_wanted = reader.Uint("replicas_wanted", config.replicas_wanted(),
                                     {.default_value = 1, .min = 1, .max = 16}),
      .state_file = config.state_file()};
  SY_RETURN_IF_ERROR(reader.status());
  return options;
}

absl::StatusOr<std::optional<Placement>> ReadState(const std::string& state_file) {
  if (state_file.empty()) {
    return std::nullopt;
  }
  auto text = ReadFile(state_file, kStateBytesMax);
  if (text.status().code() == absl::StatusCode::kNotFound) {
    return std::nullopt;
  }
  SY_RETURN_IF_ERROR(text.status());
  v1::Placement proto;
  const auto parsed = google::protobuf::util::JsonStringToMessage(*text, &proto);
  if (!parsed.ok()) {
    return DataLoss("state file {}: {}; remove it to start from nothing", state_file,
                    parsed.message().ToString());
  }
  auto placement = FromProto(proto);
  if (!placement.ok()) {
    return DataLoss("state file {}: {}; remove it to start from nothing", state_file,
                    MessageOf(placement.status()));
  }
  return *std::move(placement);
}

absl::Status WriteState(const std::string& state_file, const Placement& placement) {
  if (state_file.empty()) {
    return absl::OkStatus();
  }
  std::string text;
  const auto printed = google::protobuf::util::MessageToJsonString(ToProto(placement), &text);
  if (!printed.ok()) {
    return Internal("placement as json: {}", printed.message().ToString());
  }
  return WriteFileAtomically(state_file, text + "\n");
}

absl::StatusOr<std::unique_ptr<ServiceProcess>> Autoscaler::Make(const std::string& config_path) {
  config::v1::AutoscalerConfig config;
  SY_RETURN_IF_ERROR(LoadConfig(config_path, config));
  SY_ASSIGN_OR_RETURN(AutoscalerOptions options, ReadOptions(config));
  SY_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(options.model_dir));
  SY_ASSIGN_OR_RETURN(std::optional<Placement> last_active, ReadState(options.state_file));
  const ModelSpec& spec = checkpoint.spec();
  EpochCoordinator coordinator(
      {.shape = {.first_moe_layer = static_cast<uint16_t>(spec.first_moe_layer),
                 .layer_count = static_cast<uint16_t>(spec.layer_count),
                 .expert_count = static_cast<uint16_t>(spec.expert_count)},
       .model_digest = checkpoint.digest(),
       .shards_wanted = options.shards_wanted,
       .replicas_wanted = options.replicas_wanted},
      std::move(last_active));
  return std::unique_ptr<ServiceProcess>(
      new Autoscaler(std::move(options), std::move(coordinator)));
}

Autoscaler::Autoscaler(AutoscalerOptions options, EpochCoordinator coordinator)
    : options_(std::move(options)),
      metrics_(registry_),
      service_(
          std::move(coordinator),
          [this](const Placement& placement) { return WriteState(options_.state_file, placement); },
          clock_, metrics_) {}

Autoscaler::~Autoscaler() { Stop(Duration(0)); }

absl::Status Autoscaler::Start() {
  SY_ASSIGN_OR_RETURN(server_, RpcServer::Start({.address = options_.grpc_address}, {&service_}));
  SY_ASSIGN_OR_RETURN(admin_, AdminServer::Start(options_.common.admin_address, registry_, health_,
                                                 [this] { return StatusJson(); }));
  service_.Start();
  health_.SetReady();
  SY_LOG_INFO("autoscaler started grpc={} shards_wanted={} replicas_wanted={}", server_->address(),
              options_.shards_wanted, options_.replicas_wanted);
  return WriteAddressFile(options_.common.address_file, options_.common.name,
                          {{"admin", admin_->address()}, {"grpc", server_->address()}});
}

void Autoscaler::Stop(Duration /*drain*/) {
  service_.Stop();
  if (server_ != nullptr) {
    server_->Stop(std::chrono::milliseconds(500));
  }
  admin_.reset();
}

Duration Autoscaler::drain_max() const {
  return std::chrono::seconds(options_.common.drain_seconds_max);
}

std::string Autoscaler::StatusJson() const {
  const EpochCoordinator::Description description = service_.Describe();
  boost::json::array shards;
  for (const EpochCoordinator::MemberState& member : description.members) {
    shards.push_back({{"shard", member.info.shard.value()},
                      {"state", member.state},
                      {"address", member.info.address},
                      {"loaded", member.loaded},
                      {"total", member.total}});
  }
  return boost::json::serialize(boost::json::object{{"name", options_.common.name},
                                                    {"role", "autoscaler"},
                                                    {"pid", ::getpid()},
                                                    {"epoch", description.epoch.value()},
                                                    {"phase", description.phase},
                                                    {"replicas_min", description.replicas_min},
                                                    {"shards", shards}});
}

}  // namespace switchyard
