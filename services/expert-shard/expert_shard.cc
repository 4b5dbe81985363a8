#include "services/expert-shard/expert_shard.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "libs/app/incarnation.h"
#include "libs/base/bounded_queue.h"
#include "libs/base/check.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"
#include "libs/control/placement_convert.h"
#include "libs/model/load_log.h"
#include "libs/model/numerics_id.h"
#include "libs/rpc/channel.h"
#include "libs/wire/frame.h"

namespace switchyard {
namespace {

// How often progress is reported while loading. The reports also keep the call to the autoscaler
// alive: gRPC answers its pings only while the agent's thread is in a call.
constexpr absl::Duration kReportInterval = absl::Milliseconds(500);
constexpr Duration kTransportWait = std::chrono::seconds(1);

// Between the two halves of a feed-forward network.
constexpr std::chrono::microseconds kComputeSpin(10);

ExpertShape ShapeOf(const ModelSpec& spec) {
  return {.first_moe_layer = static_cast<uint16_t>(spec.first_moe_layer),
          .layer_count = static_cast<uint16_t>(spec.layer_count),
          .expert_count = static_cast<uint16_t>(spec.expert_count)};
}

}  // namespace

absl::StatusOr<ExpertShardOptions> ReadOptions(const config::v1::ExpertShardConfig& config) {
  ConfigReader reader("expert_shard");
  ExpertShardOptions options{
      .common = ReadCommon(reader, config.common()),
      .shard = ShardId(reader.Uint("shard", config.shard(), {.max = 65535})),
      .data_address = ConfigReader::Text(config.data_address(), "127.0.0.1:0"),
      .advertised_address = config.advertised_address(),
      .model_dir = reader.Required("model_dir", config.model_dir()),
      .autoscaler_address = reader.Required("autoscaler_address", config.autoscaler_address()),
      .threads =
          reader.Uint("threads", config.threads(), {.default_value = 1, .min = 1, .max = 256}),
      .memory_bytes_max = config.memory_bytes_max()};
  SY_RETURN_IF_ERROR(reader.status());
  const absl::StatusOr<UcxOptions::Mode> transport = ParseUcxMode(config.transport());
  if (!transport.ok()) {
    return Annotate(transport.status(), "config expert_shard.transport");
  }
  options.transport = *transport;
  const absl::StatusOr<WeightChoice> weights =
      ParseWeightChoice(ConfigReader::Text(config.weights(), "auto"));
  if (!weights.ok()) {
    return Annotate(weights.status(), "config expert_shard.weights");
  }
  options.weights = *weights;
  return options;
}

absl::StatusOr<std::unique_ptr<ServiceProcess>> ExpertShard::Make(const std::string& config_path) {
  config::v1::ExpertShardConfig config;
  SY_RETURN_IF_ERROR(LoadConfig(config_path, config));
  SY_ASSIGN_OR_RETURN(ExpertShardOptions options, ReadOptions(config));
  SY_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(options.model_dir));
  return std::unique_ptr<ServiceProcess>(
      new ExpertShard(std::move(options), std::move(checkpoint)));
}

ExpertShard::ExpertShard(ExpertShardOptions options, Checkpoint checkpoint)
    : options_(std::move(options)),
      checkpoint_(std::move(checkpoint)),
      shape_(ShapeOf(checkpoint_.spec())),
      incarnation_(NewIncarnation()),
      experts_metrics_(registry_),
      load_progress_ratio_(registry_.MakeGauge("switchyard_shard_load_progress_ratio",
                                               "Share of the commanded experts loaded.")),
      memory_bytes_(registry_.MakeGauge("switchyard_shard_memory_bytes",
                                        "Bytes of expert weights held.", {{"kind", "weights"}})),
      bank_(shape_),
      pool_(options_.threads, kComputeSpin) {}

ExpertShard::~ExpertShard() { Stop(Duration(0)); }

absl::Status ExpertShard::Start() {
  health_.SetNotReady(Unavailable("waiting for a placement"));
  SY_RETURN_IF_ERROR(StartDataPlane());
  SY_RETURN_IF_ERROR(StartAdmin());
  agent_ = std::make_unique<ShardAgent>(
      MakeChannel(options_.autoscaler_address),
      ShardRegistration{
          .info = {.shard = options_.shard,
                   .incarnation = incarnation_,
                   .address = options_.advertised_address.empty() ? bound_address_
                                                                  : options_.advertised_address,
                   .memory_bytes = options_.memory_bytes_max},
          .model_digest = checkpoint_.digest(),
          .numerics_id = NumericsId(checkpoint_.spec(), options_.weights),
          .shape = shape_,
          .expert_bytes = checkpoint_.expert_bytes(options_.weights)},
      static_cast<ShardCommandHandler&>(*this));
  agent_->Start();
  SY_LOG_INFO("shard started shard={} incarnation={} data={} transport={} kernels={}",
              options_.shard, incarnation_, bound_address_, transport_description_,
              NameOf(BestKernels().instruction_set));
  return absl::OkStatus();
}

void ExpertShard::Stop(Duration /*drain*/) {
  RequestStop();  // What loads ends, so that its thread can be joined.
  if (agent_ != nullptr) {
    agent_->Stop();
  }
  stopping_.store(true);
  if (transport_thread_.joinable()) {
    transport_->Wake();
    transport_thread_.join();
  }
  admin_.reset();
  server_.reset();
  transport_.reset();
}

Duration ExpertShard::drain_max() const {
  return std::chrono::seconds(options_.common.drain_seconds_max);
}

// A thread of its own loads, so that a slow disk cannot delay the reports.
absl::StatusOr<std::vector<ExpertWeights>> ExpertShard::LoadExperts(
    const std::vector<ExpertName>& missing, size_t wanted_count,
    const std::function<void(uint32_t)>& progress) {
  using Loaded = absl::StatusOr<std::vector<ExpertWeights>>;
  const auto wanted = static_cast<double>(wanted_count);
  const auto loading = static_cast<double>(missing.size());
  std::atomic<double> loaded_count = wanted - loading;
  BoundedQueue<Loaded> done(1);
  std::thread loader([&] {
    SetThreadName("load");
    LoadLog log(clock_, "experts");
    const LoadOptions load{.threads = options_.threads,
                           .observer =
                               [&](const LoadProgress& part) {
                                 loaded_count.store(wanted - loading + loading * part.ratio());
                                 log.Note(part);
                               },
                           .cancelled = &stop_requested()};
    Loaded loaded = checkpoint_.LoadExperts(missing, options_.weights, load);
    SY_CHECK(done.TryPush(std::move(loaded)));
  });
  std::optional<Loaded> loaded = done.PopWithTimeout(kReportInterval);
  for (; !loaded.has_value(); loaded = done.PopWithTimeout(kReportInterval)) {
    load_progress_ratio_.Set(loaded_count.load() / wanted);
    SayWhileUnready(
        Unavailable("loading experts: {:.0f} of {}", loaded_count.load(), wanted_count));
    progress(static_cast<uint32_t>(loaded_count.load()));
  }
  loader.join();
  return *std::move(loaded);
}

void ExpertShard::SayWhileUnready(const absl::Status& why) {
  if (newest_epoch_.load() == 0) {
    health_.SetNotReady(why);
  }
}

absl::Status ExpertShard::OnLoad(EpochId epoch, const std::vector<uint32_t>& experts,
                                 const std::function<void(uint32_t)>& progress) {
  SY_LOG_INFO("loading epoch={} experts={}", epoch, experts.size());
  std::vector<ExpertName> missing;
  for (const uint32_t flat_index : experts) {
    SY_ASSIGN_OR_RETURN(const LayerExpert which, FromFlatIndex(shape_, flat_index));
    if (bank_.Find(which.layer, which.expert) == nullptr) {
      missing.push_back({.layer = which.layer, .expert = which.expert});
    }
  }
  SayWhileUnready(
      Unavailable("loading experts: {} of {}", experts.size() - missing.size(), experts.size()));
  absl::StatusOr<std::vector<ExpertWeights>> result =
      LoadExperts(missing, experts.size(), progress);
  SayWhileUnready(result.ok() ? Unavailable("loaded, waiting for epoch {}", epoch)
                              : result.status());
  SY_ASSIGN_OR_RETURN(std::vector<ExpertWeights> loaded, std::move(result));
  for (size_t i = 0; i < missing.size(); ++i) {
    SY_RETURN_IF_ERROR(bank_.Load(missing[i].layer, missing[i].expert,
                                  std::make_shared<const ExpertWeights>(std::move(loaded[i]))));
  }
  load_progress_ratio_.Set(1.0);
  memory_bytes_.Set(static_cast<double>(bank_.resident_count()) *
                    static_cast<double>(checkpoint_.expert_bytes(options_.weights)));
  return absl::OkStatus();
}

void ExpertShard::OnActive(EpochId epoch, const std::vector<uint32_t>& experts) {
  // Experts that moved away stay resident: routers may still hold the older epoch.
  newest_epoch_.store(epoch.value());
  transport_->Wake();
  health_.SetReady();
  SY_LOG_INFO("epoch active epoch={} experts={} resident={}", epoch, experts.size(),
              bank_.resident_count());
}

absl::Status ExpertShard::StartDataPlane() {
  const ModelSpec& spec = checkpoint_.spec();
  SY_RETURN_IF_ERROR(
      CheckRowLimits(spec.hidden_size, WireRowDtype(spec, options_.weights), spec.top_k));
  SY_ASSIGN_OR_RETURN(transport_,
                      CreateUcxTransport({.mode = options_.transport}, TransportLimits{}));
  server_ = std::make_unique<ExpertServer>(
      ExpertServerOptions{.shard = options_.shard,
                          .incarnation = incarnation_,
                          .model_digest = checkpoint_.digest(),
                          .numerics_id = NumericsId(spec, options_.weights),
                          .hidden_size = spec.hidden_size,
                          .row_dtype = WireRowDtype(spec, options_.weights)},
      *transport_, bank_, BestKernels(), pool_, clock_, experts_metrics_);
  SY_ASSIGN_OR_RETURN(bound_address_, transport_->Listen(options_.data_address));
  transport_description_ = transport_->description();
  transport_thread_ = std::thread([this] { RunTransportThread(); });
  return absl::OkStatus();
}

absl::Status ExpertShard::StartAdmin() {
  SY_ASSIGN_OR_RETURN(admin_, AdminServer::Start(options_.common.admin_address, registry_, health_,
                                                 [this] { return StatusJson(); }));
  return WriteAddressFile(options_.common.address_file, options_.common.name,
                          {{"admin", admin_->address()}, {"data", bound_address_}});
}

void ExpertShard::RunTransportThread() {
  SetThreadName("ucx-0");
  uint64_t told_epoch = 0;
  while (!stopping_.load()) {
    bool busy = transport_->Progress();
    busy |= server_->RunQueued();
    const uint64_t newest = newest_epoch_.load();
    if (newest != told_epoch) {
      server_->SetNewestEpoch(EpochId(newest));
      told_epoch = newest;
    }
    if (!busy) {
      transport_->Wait(server_->WaitMax(kTransportWait));
      server_->RunQueued();
    }
  }
}

std::string ExpertShard::StatusJson() const {
  return boost::json::serialize(boost::json::object{{"name", options_.common.name},
                                                    {"role", "expert-shard"},
                                                    {"pid", ::getpid()},
                                                    {"shard", options_.shard.value()},
                                                    {"epoch", newest_epoch_.load()},
                                                    {"resident_experts", bank_.resident_count()}});
}

}  // namespace switchyard
