#include "libs/control/control_service.h"

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"
#include "libs/control/placement_convert.h"
#include "libs/rpc/bounded_writer.h"
#include "libs/rpc/status_convert.h"

namespace switchyard {
namespace internal {

constexpr size_t kCommandsQueuedMax = 64;
constexpr size_t kPlacementsQueuedMax = 8;

// One shard's registration stream. Deletes itself when gRPC is done with it.
class ShardStream final : public grpc::ServerBidiReactor<v1::ShardReport, v1::ShardCommand> {
 public:
  explicit ShardStream(ControlService& service)
      : service_(service),
        writer_(
            kCommandsQueuedMax, [this](const v1::ShardCommand* c) { StartWrite(c); },
            [this](const grpc::Status& status) { Finish(status); }) {
    id_ = service_.AddShardStream(this);
    StartRead(&report_);
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      writer_.FinishNow(grpc::Status::OK);
      return;
    }
    if (report_.has_hello()) {
      if (who_.has_value()) {
        writer_.FinishNow({grpc::StatusCode::INVALID_ARGUMENT, "a second hello on one stream"});
        return;
      }
      who_ = FromProto(report_.hello().shard());
      service_.OnHello(id_, report_.hello());
    } else if (report_.has_progress() && who_.has_value()) {
      service_.OnProgress(id_, *who_, report_.progress());
    } else {
      writer_.FinishNow({grpc::StatusCode::INVALID_ARGUMENT, "the first report must be a hello"});
      return;
    }
    StartRead(&report_);
  }

  void OnWriteDone(bool ok) override { writer_.OnWriteDone(ok); }

  void OnCancel() override { writer_.FinishNow(grpc::Status::CANCELLED); }

  void OnDone() override {
    service_.RemoveShardStream(id_, who_);
    delete this;
  }

  void Send(v1::ShardCommand command) {
    if (!writer_.Push(std::move(command))) {
      writer_.FinishNow({grpc::StatusCode::RESOURCE_EXHAUSTED, "shard does not read its commands"});
    }
  }

  void End(const absl::Status& status) { writer_.FinishAfterQueued(ToGrpc(status)); }

 private:
  ControlService& service_;
  BoundedWriter<v1::ShardCommand> writer_;
  uint64_t id_ = 0;
  v1::ShardReport report_;
  std::optional<ShardInfo> who_;
};

// One router's placement watch. Deletes itself when gRPC is done with it.
class WatchStream final : public grpc::ServerWriteReactor<v1::Placement> {
 public:
  explicit WatchStream(ControlService& service)
      : service_(service),
        writer_(
            kPlacementsQueuedMax, [this](const v1::Placement* p) { StartWrite(p); },
            [this](const grpc::Status& status) { Finish(status); }) {
    id_ = service_.AddWatchStream(this);
  }

  void OnWriteDone(bool ok) override { writer_.OnWriteDone(ok); }

  void OnCancel() override { writer_.FinishNow(grpc::Status::CANCELLED); }

  void OnDone() override {
    service_.RemoveWatchStream(id_);
    delete this;
  }

  void Send(const v1::Placement& placement) {
    if (!writer_.Push(placement)) {
      writer_.FinishNow({grpc::StatusCode::RESOURCE_EXHAUSTED, "router does not read placements"});
    }
  }

  void End(const absl::Status& status) { writer_.FinishAfterQueued(ToGrpc(status)); }

 private:
  ControlService& service_;
  BoundedWriter<v1::Placement> writer_;
  uint64_t id_ = 0;
};

}  // namespace internal

namespace {

constexpr size_t kMailboxEventsMax = 4096;
constexpr absl::Duration kTickInterval = absl::Milliseconds(500);

}  // namespace

ControlService::ControlService(EpochCoordinator coordinator, CommitFunction commit,
                               const Clock& clock, ControlMetrics& metrics)
    : commit_(std::move(commit)),
      clock_(clock),
      metrics_(metrics),
      mailbox_(kMailboxEventsMax),
      coordinator_(std::move(coordinator)) {
  UpdateDescription();
  if (coordinator_.active() != nullptr) {
    PublishActive();
  }
}

ControlService::~ControlService() { Stop(); }

void ControlService::Start() {
  thread_ = std::thread([this] { RunControlThread(); });
}

void ControlService::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    for (const auto& [id, stream] : shard_streams_) {
      stream->End(absl::UnavailableError("autoscaler is stopping"));
    }
    for (const auto& [id, stream] : watch_streams_) {
      stream->End(absl::UnavailableError("autoscaler is stopping"));
    }
  }
  mailbox_.Close();
  if (thread_.joinable()) {
    thread_.join();
  }
}

EpochCoordinator::Description ControlService::Describe() const {
  absl::MutexLock lock(&mutex_);
  return description_;
}

grpc::ServerBidiReactor<v1::ShardReport, v1::ShardCommand>* ControlService::RegisterShard(
    grpc::CallbackServerContext* /*context*/) {
  return new internal::ShardStream(*this);  // Deletes itself in OnDone.
}

grpc::ServerWriteReactor<v1::Placement>* ControlService::WatchPlacement(
    grpc::CallbackServerContext* /*context*/, const v1::WatchPlacementRequest* request) {
  auto* stream = new internal::WatchStream(*this);  // Deletes itself in OnDone.
  SY_LOG_INFO("placement watcher connected name={}", request->watcher().substr(0, 64));
  return stream;
}

grpc::ServerUnaryReactor* ControlService::DescribeFleet(grpc::CallbackServerContext* context,
                                                        const v1::DescribeFleetRequest* /*request*/,
                                                        v1::DescribeFleetResponse* response) {
  const EpochCoordinator::Description description = Describe();
  response->set_epoch(description.epoch.value());
  response->set_phase(description.phase);
  response->set_replicas_min(description.replicas_min);
  for (const EpochCoordinator::MemberState& member : description.members) {
    v1::FleetShard& shard = *response->add_shards();
    *shard.mutable_shard() = ToProto(member.info);
    shard.set_state(member.state);
    shard.set_loaded(member.loaded);
    shard.set_total(member.total);
  }
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

ControlService::StreamId ControlService::AddShardStream(internal::ShardStream* stream) {
  absl::MutexLock lock(&mutex_);
  shard_streams_[next_stream_] = stream;
  if (stopping_) {
    stream->End(absl::UnavailableError("autoscaler is stopping"));
  }
  return next_stream_++;
}

ControlService::StreamId ControlService::AddWatchStream(internal::WatchStream* stream) {
  absl::MutexLock lock(&mutex_);
  watch_streams_[next_stream_] = stream;
  if (stopping_) {
    stream->End(absl::UnavailableError("autoscaler is stopping"));
  } else if (published_ != nullptr) {
    stream->Send(*published_);
  }
  return next_stream_++;
}

void ControlService::RemoveShardStream(StreamId id, const std::optional<ShardInfo>& who) {
  {
    absl::MutexLock lock(&mutex_);
    shard_streams_.erase(id);
  }
  if (who.has_value()) {
    {
      absl::MutexLock lock(&mutex_);
      losses_.push_back({.stream = id, .shard = who->shard, .incarnation = who->incarnation});
    }
    Post([](Instant) {});  // Only to wake the thread: a full mailbox does that as well.
  }
}

void ControlService::TakeLosses(Instant now) {
  std::vector<Loss> losses;
  {
    absl::MutexLock lock(&mutex_);
    losses.swap(losses_);
  }
  for (const Loss& loss : losses) {
    const auto it = stream_of_shard_.find(loss.shard);
    if (it != stream_of_shard_.end() && it->second == loss.stream) {
      stream_of_shard_.erase(it);
      coordinator_.OnLost(loss.shard, loss.incarnation, now);
      SY_LOG_WARNING("shard lost shard={} incarnation={}", loss.shard, loss.incarnation);
    }
  }
}

void ControlService::RemoveWatchStream(StreamId id) {
  absl::MutexLock lock(&mutex_);
  watch_streams_.erase(id);
}

void ControlService::OnHello(StreamId id, const v1::ShardHello& hello) {
  absl::StatusOr<ExpertShape> shape = FromProto(hello.shape());
  if (!shape.ok()) {
    EndShardStream(id, shape.status());
    return;
  }
  ShardRegistration registration{.info = FromProto(hello.shard()),
                                 .model_digest = hello.model_digest(),
                                 .numerics_id = hello.numerics_id(),
                                 .shape = *shape,
                                 .expert_bytes = hello.expert_bytes()};
  const bool posted = Post([this, id, registration = std::move(registration)](Instant now) {
    Register(id, registration, now);
  });
  if (!posted) {
    EndShardStream(id, absl::UnavailableError("the autoscaler is busy; try again"));
  }
}

void ControlService::EndShardStream(StreamId id, const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  if (const auto it = shard_streams_.find(id); it != shard_streams_.end()) {
    it->second->End(status);
  }
}

void ControlService::OnProgress(StreamId id, const ShardInfo& who,
                                const v1::LoadProgress& progress) {
  EpochCoordinator::Progress event{.shard = who.shard,
                                   .incarnation = who.incarnation,
                                   .epoch = EpochId(progress.epoch()),
                                   .loaded = progress.loaded(),
                                   .total = progress.total(),
                                   .error = progress.error()};
  if (!Post(
          [this, event = std::move(event)](Instant now) { coordinator_.OnProgress(event, now); })) {
    EndShardStream(id, absl::UnavailableError("the autoscaler is busy; try again"));
  }
}

void ControlService::RunControlThread() {
  SetThreadName("control");
  while (!mailbox_.closed()) {
    std::optional<std::function<void(Instant)>> event = mailbox_.PopWithTimeout(kTickInterval);
    const Instant now = clock_.Now();
    if (event.has_value()) {
      (*event)(now);
    }
    TakeLosses(now);
    Execute(coordinator_.Tick(now), now);
    UpdateDescription();
  }
}

void ControlService::Register(StreamId id, const ShardRegistration& registration, Instant now) {
  const absl::Status registered = coordinator_.OnRegister(registration, now);
  if (!registered.ok()) {
    metrics_.registrations_rejected_total.Add();
    SY_LOG_WARNING("shard refused: {}", MessageOf(registered));
    EndShardStream(id, registered);
    return;
  }
  stream_of_shard_[registration.info.shard] = id;
  SY_LOG_INFO("shard registered shard={} incarnation={} address={}", registration.info.shard,
              registration.info.incarnation, registration.info.address);
}

void ControlService::Execute(CoordinatorActions actions, Instant now) {
  for (const CoordinatorActions::Command& command : actions.commands) {
    SendCommand(command);
  }
  if (!actions.commit.has_value()) {
    return;
  }
  const EpochId epoch = actions.commit->epoch;
  const absl::Status committed = commit_(*actions.commit);
  if (!committed.ok()) {
    metrics_.commit_failures_total.Add();
    SY_LOG_ERROR("cannot commit epoch={}: {}", epoch, MessageOf(committed));
    coordinator_.OnCommitFailed(epoch, MessageOf(committed), now);
    return;
  }
  metrics_.epochs_committed_total.Add();
  const CoordinatorActions activate = coordinator_.OnCommitted(epoch, now);
  PublishActive();
  SY_LOG_INFO("placement active epoch={} shards={}", epoch, coordinator_.active()->shards.size());
  for (const CoordinatorActions::Command& command : activate.commands) {
    SendCommand(command);
  }
}

void ControlService::SendCommand(const CoordinatorActions::Command& command) {
  v1::ShardCommand proto;
  proto.set_epoch(command.epoch.value());
  proto.mutable_experts()->Add(command.experts.begin(), command.experts.end());
  proto.set_active(command.active);
  const auto stream = stream_of_shard_.find(command.shard);
  if (stream == stream_of_shard_.end()) {
    return;  // Lost meanwhile; the coordinator hears of it by the mailbox.
  }
  absl::MutexLock lock(&mutex_);
  if (const auto it = shard_streams_.find(stream->second); it != shard_streams_.end()) {
    it->second->Send(std::move(proto));
  }
}

void ControlService::PublishActive() {
  auto proto = std::make_shared<const v1::Placement>(ToProto(*coordinator_.active()));
  absl::MutexLock lock(&mutex_);
  published_ = proto;
  for (const auto& [id, stream] : watch_streams_) {
    stream->Send(*proto);
  }
}

void ControlService::UpdateDescription() {
  EpochCoordinator::Description description = coordinator_.Describe();
  metrics_.placement_epoch.Set(static_cast<double>(description.epoch.value()));
  metrics_.expert_replicas_min.Set(description.replicas_min);
  double connected_count = 0;
  for (const EpochCoordinator::MemberState& member : description.members) {
    connected_count += member.state == "lost" ? 0 : 1;
  }
  metrics_.shards_connected.Set(connected_count);
  absl::MutexLock lock(&mutex_);
  description_ = std::move(description);
}

bool ControlService::Post(std::function<void(Instant)> event) {
  if (mailbox_.TryPush(std::move(event))) {
    return true;
  }
  metrics_.mailbox_rejected_total.Add();
  return false;
}

}  // namespace switchyard
