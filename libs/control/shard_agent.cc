#include "libs/control/shard_agent.h"

#include <memory>
#include <utility>
#include <vector>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/control/placement_convert.h"
#include "libs/rpc/status_convert.h"

namespace switchyard {

ShardAgent::ShardAgent(std::shared_ptr<grpc::Channel> channel, ShardRegistration registration,
                       ShardCommandHandler& handler)
    : stub_(v1::Control::NewStub(std::move(channel))),
      registration_(std::move(registration)),
      handler_(handler),
      call_("register", [this](grpc::ClientContext& context) { return Serve(context); }) {}

absl::Status ShardAgent::Serve(grpc::ClientContext& context) {
  auto stream = stub_->RegisterShard(&context);
  v1::ShardReport report;
  v1::ShardHello& hello = *report.mutable_hello();
  *hello.mutable_shard() = ToProto(registration_.info);
  hello.set_model_digest(registration_.model_digest);
  hello.set_numerics_id(registration_.numerics_id);
  *hello.mutable_shape() = ToProto(registration_.shape);
  hello.set_expert_bytes(registration_.expert_bytes);
  bool alive = stream->Write(report);
  v1::ShardCommand command;
  while (alive && stream->Read(&command)) {
    if (command.active()) {
      handler_.OnActive(EpochId(command.epoch()),
                        {command.experts().begin(), command.experts().end()});
    } else {
      alive = Load(command, *stream);
    }
  }
  stream->WritesDone();
  return FromGrpc(stream->Finish());
}

bool ShardAgent::Load(const v1::ShardCommand& command, Stream& stream) {
  v1::ShardReport report;
  v1::LoadProgress& progress = *report.mutable_progress();
  progress.set_epoch(command.epoch());
  progress.set_total(static_cast<uint32_t>(command.experts_size()));
  bool alive = true;
  const absl::Status loaded = handler_.OnLoad(EpochId(command.epoch()),
                                              {command.experts().begin(), command.experts().end()},
                                              [&](uint32_t loaded_count) {
                                                if (loaded_count < progress.total()) {
                                                  progress.set_loaded(loaded_count);
                                                  alive = alive && stream.Write(report);
                                                }
                                              });
  if (absl::IsCancelled(loaded)) {  // This process stops: the end of the call says so.
    SY_LOG_INFO("loading given up epoch={}", command.epoch());
    return false;
  }
  if (loaded.ok()) {
    progress.set_loaded(progress.total());
  } else {
    SY_LOG_ERROR("cannot load epoch={}: {}", command.epoch(), MessageOf(loaded));
    progress.set_error(MessageOf(loaded));
  }
  return alive && stream.Write(report);
}

}  // namespace switchyard
