#include "libs/engine/testing/inproc_cluster.h"

#include <atomic>
#include <future>
#include <thread>
#include <utility>

#include "libs/base/check.h"
#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/experts/expert_bank.h"
#include "libs/experts/expert_server.h"
#include "libs/model/numerics_id.h"
#include "libs/placement/placement.h"

namespace switchyard {
namespace {

constexpr const char* kNumericsId = "in-process test";
constexpr Duration kSetUpMax = std::chrono::seconds(60);

template <typename T>
T Need(absl::StatusOr<T> value) {
  if (!value.ok()) {
    SY_LOG_ERROR("cluster error=\"{}\"", MessageOf(value.status()));
  }
  SY_CHECK(value.ok());
  return *std::move(value);
}

ExpertShape ShapeOf(const ModelSpec& spec) {
  return {.first_moe_layer = static_cast<uint16_t>(spec.first_moe_layer),
          .layer_count = static_cast<uint16_t>(spec.layer_count),
          .expert_count = static_cast<uint16_t>(spec.expert_count)};
}

}  // namespace

// One shard and its thread, which makes and ends all that it owns.
class InprocCluster::Shard {
 public:
  Shard(InprocCluster& cluster, uint32_t shard, Incarnation incarnation)
      : cluster_(cluster), shard_(shard), incarnation_(incarnation) {
    std::promise<std::string> address;
    std::future<std::string> bound = address.get_future();
    thread_ = std::thread([this, &address] { Serve(address); });
    address_ = bound.get();
  }

  ~Shard() {
    stopped_.store(true);
    transport_.load()->Wake();
    thread_.join();
  }

  ShardInfo info() const {
    return {.shard = ShardId(shard_), .incarnation = incarnation_, .address = address_};
  }

  // Expert e of layer l lives on shard (e + l) mod count and the replica_count - 1 that follow.
  bool Holds(uint32_t layer, uint32_t expert) const {
    const uint32_t count = cluster_.options_.shard_count;
    return (shard_ + count - (layer + expert) % count) % count < cluster_.options_.replica_count;
  }

 private:
  void Serve(std::promise<std::string>& address) {
    const ModelSpec& spec = cluster_.checkpoint_->spec();
    const std::unique_ptr<Transport> transport =
        Need(cluster_.make_transport_(fmt::format("shard-{}-{}", shard_, incarnation_)));
    ExpertBank bank(ShapeOf(spec));
    LoadExperts(spec, bank);
    ComputePool pool(cluster_.options_.threads);
    Registry registry;
    ExpertsMetrics metrics(registry);
    ExpertServer server({.shard = ShardId(shard_),
                         .incarnation = incarnation_,
                         .model_digest = cluster_.checkpoint_->digest(),
                         .numerics_id = kNumericsId,
                         .hidden_size = spec.hidden_size,
                         .row_dtype = WireRowDtype(spec, cluster_.options_.weights)},
                        *transport, bank, cluster_.kernels_, pool, cluster_.clock_, metrics);
    transport_.store(transport.get());
    std::string bound = Need(transport->Listen(cluster_.options_.listen_address));
    address.set_value(std::move(bound));
    while (!stopped_.load()) {
      transport->Wait(server.WaitMax(std::chrono::seconds(1)));
      while (server.RunQueued()) {
        transport->Progress();
      }
    }
  }

  void LoadExperts(const ModelSpec& spec, ExpertBank& bank) const {
    for (uint32_t layer = spec.first_moe_layer; layer < spec.layer_count; ++layer) {
      for (uint32_t expert = 0; expert < spec.expert_count; ++expert) {
        if (!Holds(layer, expert)) {
          continue;
        }
        const LayerId layer_id(static_cast<uint16_t>(layer));
        const ExpertId expert_id(static_cast<uint16_t>(expert));
        const auto loaded =
            bank.Load(layer_id, expert_id,
                      std::make_shared<const ExpertWeights>(Need(cluster_.checkpoint_->LoadExpert(
                          layer_id, expert_id, cluster_.options_.weights))));
        SY_CHECK(loaded.ok());
      }
    }
  }

  InprocCluster& cluster_;
  const uint32_t shard_;
  const Incarnation incarnation_;
  std::string address_;
  std::atomic<bool> stopped_ = false;
  std::atomic<Transport*> transport_ = nullptr;
  std::thread thread_;
};

InprocCluster::InprocCluster(InprocClusterOptions options)
    : options_(std::move(options)),
      kernels_(*Need(KernelsFor(options_.instruction_set))),
      checkpoint_(std::make_unique<Checkpoint>(Need(Checkpoint::Open(options_.model_dir)))),
      weights_(Need(checkpoint_->LoadRouterWeights(options_.weights))),
      make_transport_(options_.make_transport),
      pool_(options_.threads),
      dispatch_metrics_(registry_),
      engine_metrics_(registry_) {
  if (options_.shards_of != nullptr) {
    make_transport_ = options_.shards_of->make_transport_;
  } else if (!make_transport_) {
    make_transport_ = [this](const std::string& name) { return network_.CreateEndpoint(name); };
  }
  const uint32_t own_shard_count = options_.shards_of == nullptr ? options_.shard_count : 0;
  for (uint32_t shard = 0; shard < own_shard_count; ++shard) {
    shards_.push_back(std::make_unique<Shard>(*this, shard, Incarnation(next_incarnation_++)));
  }
  transport_ = Need(make_transport_(options_.shards_of == nullptr ? "router" : "second-router"));
  const ModelSpec& spec = checkpoint_->spec();
  dispatcher_ = std::make_unique<Dispatcher>(
      DispatcherOptions{.hidden_size = spec.hidden_size,
                        .top_k = spec.top_k,
                        .row_dtype = WireRowDtype(spec, options_.weights),
                        .model_digest = checkpoint_->digest(),
                        .numerics_id = kNumericsId,
                        .incarnation = Incarnation(1),
                        .call_deadline = options_.call_deadline,
                        .reconnect_backoff = std::chrono::milliseconds(5)},
      *transport_, clock_, dispatch_metrics_);
}

InprocCluster::~InprocCluster() = default;

EngineLoop& InprocCluster::StartEngine(EngineOptions options, EventSink* sink) {
  engine_.reset();
  sink_ = std::make_unique<RecordingSink>();
  engine_ = std::make_unique<EngineLoop>(
      std::move(options),
      EngineModel{
          .spec = checkpoint_->spec(), .weights = weights_, .kernels = kernels_, .pool = pool_},
      *dispatcher_, clock_, engine_metrics_, sink == nullptr ? *sink_ : *sink);
  PublishPlacement();
  SY_CHECK(RunUntil([this] { return dispatcher_->Ready().ok(); }));
  return *engine_;
}

bool InprocCluster::RunUntil(const std::function<bool()>& condition) {
  const Instant give_up = clock_.Now() + kSetUpMax;
  while (!condition()) {
    if (clock_.Now() > give_up) {
      return false;
    }
    if (!engine_->RunOnce(clock_.Now()) && !condition()) {
      dispatcher_->WaitForWork(std::chrono::milliseconds(5));
    }
  }
  return true;
}

bool InprocCluster::RunUntilIdle() {
  return RunUntil([this] { return engine_->live_count() == 0; });
}

void InprocCluster::StopShard(uint32_t shard) { shards_[shard].reset(); }

void InprocCluster::RestartShard(uint32_t shard) {
  StopShard(shard);
  shards_[shard] = std::make_unique<Shard>(*this, shard, Incarnation(next_incarnation_++));
}

void InprocCluster::PublishPlacement() { engine_->SetRoutes(MakeRoutes()); }

std::shared_ptr<const RouteTable> InprocCluster::MakeRoutes() {
  if (options_.shards_of != nullptr) {
    return options_.shards_of->MakeRoutes();
  }
  Placement placement;
  placement.epoch = EpochId(next_epoch_.fetch_add(1));
  placement.model_digest = checkpoint_->digest();
  placement.shape = ShapeOf(checkpoint_->spec());
  for (const auto& shard : shards_) {
    if (shard != nullptr) {
      placement.shards.push_back(shard->info());
    }
  }
  const ExpertShape& shape = placement.shape;
  for (uint16_t layer = shape.first_moe_layer; layer < shape.layer_count; ++layer) {
    for (uint16_t expert = 0; expert < shape.expert_count; ++expert) {
      for (uint32_t shard = 0; shard < shards_.size(); ++shard) {
        if (shards_[shard] != nullptr && shards_[shard]->Holds(layer, expert)) {
          placement.replicas.push_back(
              {.layer = LayerId(layer), .expert = ExpertId(expert), .shard = ShardId(shard)});
        }
      }
    }
  }
  return std::make_shared<const RouteTable>(Need(RouteTable::Build(std::move(placement))));
}

}  // namespace switchyard
