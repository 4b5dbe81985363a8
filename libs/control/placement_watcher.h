#ifndef SWITCHYARD_LIBS_CONTROL_PLACEMENT_WATCHER_H_
#define SWITCHYARD_LIBS_CONTROL_PLACEMENT_WATCHER_H_

#include <functional>
#include <memory>
#include <string>

#include <grpcpp/channel.h>

#include "proto/switchyard/v1/control.grpc.pb.h"

#include "libs/base/ids.h"
#include "libs/control/reconnecting_call.h"
#include "libs/placement/route_table.h"

namespace switchyard {

// PlacementWatcher gives a router each placement that becomes active, oldest epochs refused. While
// the autoscaler is away the router keeps what it has.
//
// Start() and Stop() belong to one owner; `on_routes` runs on the watcher's thread and must only
// post.
class PlacementWatcher {
 public:
  PlacementWatcher(std::shared_ptr<grpc::Channel> channel, std::string name,
                   std::string model_digest,
                   std::function<void(std::shared_ptr<const RouteTable>)> on_routes);

  void Start() { call_.Start(); }

  void Stop() { call_.Stop(); }

 private:
  absl::Status Watch(grpc::ClientContext& context);

  const std::unique_ptr<v1::Control::Stub> stub_;
  const std::string name_;
  const std::string model_digest_;
  const std::function<void(std::shared_ptr<const RouteTable>)> on_routes_;
  EpochId newest_;
  ReconnectingCall call_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_CONTROL_PLACEMENT_WATCHER_H_
