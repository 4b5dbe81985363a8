#include "libs/control/placement_watcher.h"

#include <memory>
#include <string>
#include <utility>

#include "libs/base/log.h"
#include "libs/base/status.h"
#include "libs/control/placement_convert.h"
#include "libs/rpc/status_convert.h"

namespace switchyard {

PlacementWatcher::PlacementWatcher(std::shared_ptr<grpc::Channel> channel, std::string name,
                                   std::string model_digest,
                                   std::function<void(std::shared_ptr<const RouteTable>)> on_routes)
    : stub_(v1::Control::NewStub(std::move(channel))),
      name_(std::move(name)),
      model_digest_(std::move(model_digest)),
      on_routes_(std::move(on_routes)),
      call_("watch", [this](grpc::ClientContext& context) { return Watch(context); }) {}

absl::Status PlacementWatcher::Watch(grpc::ClientContext& context) {
  v1::WatchPlacementRequest request;
  request.set_watcher(name_);
  request.set_model_digest(model_digest_);
  auto reader = stub_->WatchPlacement(&context, request);
  v1::Placement proto;
  while (reader->Read(&proto)) {
    absl::StatusOr<Placement> placement = FromProto(proto);
    if (!placement.ok()) {
      SY_LOG_ERROR("placement refused epoch={}: {}", proto.epoch(), MessageOf(placement.status()));
      continue;
    }
    if (placement->model_digest != model_digest_) {
      SY_LOG_ERROR("placement refused epoch={}: it is for another model", placement->epoch);
      continue;
    }
    if (placement->epoch <= newest_) {
      continue;  // Seen before a reconnect, or older.
    }
    newest_ = placement->epoch;
    absl::StatusOr<RouteTable> routes = RouteTable::Build(*std::move(placement));
    if (!routes.ok()) {
      SY_LOG_ERROR("placement refused: {}", MessageOf(routes.status()));
      continue;
    }
    on_routes_(std::make_shared<const RouteTable>(*std::move(routes)));
  }
  return FromGrpc(reader->Finish());
}

}  // namespace switchyard
