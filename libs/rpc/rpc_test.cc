#include <chrono>
#include <memory>

#include <grpcpp/grpcpp.h>

#include "gtest/gtest.h"

#include "proto/switchyard/v1/control.grpc.pb.h"

#include "libs/base/status.h"
#include "libs/rpc/channel.h"
#include "libs/rpc/rpc_server.h"
#include "libs/rpc/status_convert.h"

namespace switchyard {
namespace {

class FleetService final : public v1::Control::CallbackService {
 public:
  grpc::ServerUnaryReactor* DescribeFleet(grpc::CallbackServerContext* context,
                                          const v1::DescribeFleetRequest* /*request*/,
                                          v1::DescribeFleetResponse* response) override {
    response->set_epoch(7);
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

TEST(StatusConvert, KeepsCodeAndMessageBothWays) {
  const absl::Status status = Unavailable("no shard {}", 3);
  const absl::Status back = FromGrpc(ToGrpc(status));
  EXPECT_EQ(back, status);
  EXPECT_TRUE(FromGrpc(ToGrpc(absl::OkStatus())).ok());
}

TEST(RpcServer, ServesOnAPortOfItsChoiceUntilStopped) {
  FleetService service;
  auto server = RpcServer::Start({.address = "127.0.0.1:0"}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  auto stub = v1::Control::NewStub(MakeChannel((*server)->address()));
  v1::DescribeFleetResponse response;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->DescribeFleet(&context, {}, &response).ok());
  }
  EXPECT_EQ(response.epoch(), 7U);
  (*server)->Stop(std::chrono::milliseconds(0));
  grpc::ClientContext context;
  const grpc::Status status = stub->DescribeFleet(&context, {}, &response);
  EXPECT_EQ(FromGrpc(status).code(), absl::StatusCode::kUnavailable);
}

TEST(RpcServer, RefusesAnAddressInUseOrMalformed) {
  FleetService service;
  auto first = RpcServer::Start({.address = "127.0.0.1:0"}, {&service});
  ASSERT_TRUE(first.ok());
  FleetService other;
  EXPECT_EQ(RpcServer::Start({.address = (*first)->address()}, {&other}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(RpcServer::Start({.address = "nowhere"}, {&other}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard
