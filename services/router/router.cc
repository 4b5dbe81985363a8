#include "services/router/router.h"

#include <chrono>
#include <map>
#include <string>
#include <utility>

#include <unistd.h>

#include "libs/app/incarnation.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"
#include "libs/model/load_log.h"
#include "libs/model/numerics_id.h"
#include "libs/rpc/channel.h"
#include "libs/wire/frame.h"

namespace switchyard {
namespace {

// Once the drain is over, what is left of open calls is ended.
constexpr std::chrono::milliseconds kServerStopGrace(500);

// The products of one layer follow each other within microseconds: too soon to sleep in between.
constexpr std::chrono::microseconds kComputeSpin(20);

// Routers share a sequence only when their caches round alike, too.
std::string SequenceNumericsId(const ModelSpec& spec, WeightChoice weights, Dtype cache_dtype) {
  return fmt::format("{}/cache={}", NumericsId(spec, weights), NameOf(cache_dtype));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServiceProcess>> Router::Make(const std::string& config_path) {
  config::v1::RouterConfig config;
  SY_RETURN_IF_ERROR(LoadConfig(config_path, config));
  SY_ASSIGN_OR_RETURN(RouterOptions options, ReadOptions(config));
  SY_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(options.model_dir));
  return std::unique_ptr<ServiceProcess>(new Router(std::move(options), std::move(checkpoint)));
}

Router::Router(RouterOptions options, Checkpoint checkpoint)
    : options_(std::move(options)),
      checkpoint_(std::move(checkpoint)),
      dispatch_metrics_(registry_),
      engine_metrics_(registry_),
      inference_metrics_(registry_),
      load_progress_ratio_(registry_.MakeGauge("switchyard_router_load_progress_ratio",
                                               "Share of the router's weights loaded.")),
      streams_(clock_, inference_metrics_),
      pool_(options_.threads, kComputeSpin) {}

Router::~Router() { Stop(Duration::zero()); }

absl::Status Router::Start() {
  health_.SetNotReady(Unavailable("loading router weights"));
  // Before the weights, so that it can be watched how they come.
  SY_ASSIGN_OR_RETURN(admin_, AdminServer::Start(options_.common.admin_address, registry_, health_,
                                                 [this] { return StatusJson(); }));
  SY_RETURN_IF_ERROR(WriteAddresses());
  SY_RETURN_IF_ERROR(LoadWeights());
  health_.SetNotReady(Unavailable("waiting for a placement"));
  SY_RETURN_IF_ERROR(StartEngine());
  SY_RETURN_IF_ERROR(StartServers());
  watcher_ = std::make_unique<PlacementWatcher>(
      MakeChannel(options_.autoscaler_address), options_.common.name, checkpoint_.digest(),
      [this](std::shared_ptr<const RouteTable> routes) { engine_->SetRoutes(std::move(routes)); });
  watcher_->Start();
  SY_LOG_INFO("router started grpc={} transport={} kernels={} context={} cache_blocks={}",
              server_->address(), transport_description_, NameOf(BestKernels().instruction_set),
              engine_->context_tokens_max(), engine_->status().total_blocks);
  return absl::OkStatus();
}

void Router::Stop(Duration drain) {
  RequestStop();
  draining_.store(true);
  if (service_ != nullptr) {
    health_.SetNotReady(Unavailable("draining"));
    service_->Drain();
    if (!streams_.AwaitEmpty(drain)) {
      SY_LOG_WARNING("drain over with open requests={}", engine_->live_count());
    }
  }
  if (watcher_ != nullptr) {
    watcher_->Stop();
  }
  if (step_thread_.joinable()) {
    engine_->Stop();
    step_thread_.join();
  }
  if (server_ != nullptr) {
    server_->Stop(kServerStopGrace);
  }
  admin_.reset();
  server_.reset();
}

Duration Router::drain_max() const {
  return std::chrono::seconds(options_.common.drain_seconds_max);
}

absl::Status Router::LoadWeights() {
  LoadLog log(clock_, "router weights");
  const LoadOptions load{
      .threads = options_.threads,
      .observer =
          [this, &log](const LoadProgress& progress) {
            load_progress_ratio_.Set(progress.ratio());
            health_.SetNotReady(Unavailable("loading {}", progress.Text("router weights")));
            log.Note(progress);
          },
      .cancelled = &stop_requested()};
  SY_ASSIGN_OR_RETURN(weights_, checkpoint_.LoadRouterWeights(options_.weights, load));
  load_progress_ratio_.Set(1.0);
  return absl::OkStatus();
}

absl::Status Router::StartEngine() {
  const ModelSpec& spec = checkpoint_.spec();
  SY_RETURN_IF_ERROR(
      CheckRowLimits(spec.hidden_size, WireRowDtype(spec, options_.weights), spec.top_k));
  SY_ASSIGN_OR_RETURN(transport_,
                      CreateUcxTransport({.mode = options_.transport}, TransportLimits{}));
  dispatcher_ = std::make_unique<Dispatcher>(
      DispatcherOptions{.hidden_size = spec.hidden_size,
                        .top_k = spec.top_k,
                        .row_dtype = WireRowDtype(spec, options_.weights),
                        .model_digest = checkpoint_.digest(),
                        .numerics_id = NumericsId(spec, options_.weights),
                        .incarnation = NewIncarnation(),
                        .rows_max = options_.scheduler.step_tokens_max,
                        .call_deadline = options_.call_deadline},
      *transport_, clock_, dispatch_metrics_);
  EngineOptions engine_options = MakeEngineOptions(options_, spec);
  engine_options.on_ready_changed = [this](const absl::Status& ready) { OnReadyChanged(ready); };
  engine_ = std::make_unique<EngineLoop>(
      std::move(engine_options),
      EngineModel{.spec = spec, .weights = weights_, .kernels = BestKernels(), .pool = pool_},
      *dispatcher_, clock_, engine_metrics_, streams_);
  transport_description_ = transport_->description();
  engine_started_.store(true);
  step_thread_ = std::thread([this] {
    SetThreadName("step");
    engine_->Run();
  });
  return absl::OkStatus();
}

absl::Status Router::StartServers() {
  const ModelSpec& spec = checkpoint_.spec();
  service_ = std::make_unique<InferenceService>(
      ServedModel{.digest = checkpoint_.digest(),
                  .numerics_id = SequenceNumericsId(spec, options_.weights,
                                                    MakeEngineOptions(options_, spec).cache_dtype),
                  .vocab_size = spec.vocab_size,
                  .tenants_share_prefixes = options_.tenants_share_prefixes},
      *engine_, streams_, clock_, inference_metrics_);
  SY_ASSIGN_OR_RETURN(server_,
                      RpcServer::Start({.address = options_.grpc_address}, {service_.get()}));
  return WriteAddresses();
}

absl::Status Router::WriteAddresses() const {
  std::map<std::string, std::string> addresses = {{"admin", admin_->address()}};
  if (server_ != nullptr) {
    addresses["grpc"] = server_->address();
  }
  return WriteAddressFile(options_.common.address_file, options_.common.name, addresses);
}

// On the step thread, when reachability of the experts changes.
void Router::OnReadyChanged(const absl::Status& ready) {
  if (draining_.load()) {
    return;
  }
  if (ready.ok()) {
    health_.SetReady();
    SY_LOG_INFO("router ready");
  } else {
    health_.SetNotReady(ready);
    SY_LOG_WARNING("router not ready error=\"{}\"", MessageOf(ready));
  }
}

std::string Router::StatusJson() const {
  if (!engine_started_.load()) {
    return fmt::format(R"({{"name":"{}","role":"router","pid":{},"epoch":0,"ready":false}})",
                       options_.common.name, ::getpid());
  }
  const EngineStatus status = engine_->status();
  return fmt::format(R"({{"name":"{}","role":"router","pid":{},"epoch":{},"ready":{},)"
                     R"("running":{},"waiting":{},"free_blocks":{},"total_blocks":{}}})",
                     options_.common.name, ::getpid(), status.epoch, status.ready.ok(),
                     status.running, status.waiting, status.free_blocks, status.total_blocks);
}

}  // namespace switchyard
