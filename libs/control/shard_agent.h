#ifndef SWITCHYARD_LIBS_CONTROL_SHARD_AGENT_H_
#define SWITCHYARD_LIBS_CONTROL_SHARD_AGENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <grpcpp/channel.h>

#include "absl/status/status.h"

#include "proto/switchyard/v1/control.grpc.pb.h"

#include "libs/base/ids.h"
#include "libs/control/epoch_coordinator.h"
#include "libs/control/reconnecting_call.h"

namespace switchyard {

// What a shard does on command. Called on the agent's thread, one at a time.
class ShardCommandHandler {
 public:
  virtual ~ShardCommandHandler() = default;

  // Loads what is missing of `experts` (flat indices); calls `progress(loaded)` now and then.
  // Cancelled when the process is to stop: that is not reported.
  virtual absl::Status OnLoad(EpochId epoch, const std::vector<uint32_t>& experts,
                              const std::function<void(uint32_t)>& progress) = 0;

  // The epoch is active: experts outside `experts` are no longer asked for by routers that know it.
  virtual void OnActive(EpochId epoch, const std::vector<uint32_t>& experts) = 0;
};

// ShardAgent registers a shard with the autoscaler and carries out its commands, for ever. While
// the autoscaler is away the shard serves what it has.
//
// Start() and Stop() belong to one owner.
class ShardAgent {
 public:
  ShardAgent(std::shared_ptr<grpc::Channel> channel, ShardRegistration registration,
             ShardCommandHandler& handler);

  void Start() { call_.Start(); }

  void Stop() { call_.Stop(); }

 private:
  using Stream = grpc::ClientReaderWriter<v1::ShardReport, v1::ShardCommand>;

  absl::Status Serve(grpc::ClientContext& context);
  bool Load(const v1::ShardCommand& command, Stream& stream);

  const std::unique_ptr<v1::Control::Stub> stub_;
  const ShardRegistration registration_;
  ShardCommandHandler& handler_;
  ReconnectingCall call_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_SHARD_AGENT_H_
