#include "services/gateway/router_client.h"

#include <utility>

#include <grpc/support/time.h>

#include "libs/rpc/channel.h"
#include "libs/rpc/status_convert.h"

namespace switchyard {
namespace {

void SetTimeout(grpc::ClientContext& context, Duration timeout) {
  context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                    gpr_time_from_nanos(timeout.count(), GPR_TIMESPAN)));
}

}  // namespace

GenerateCall::GenerateCall(v1::GenerateRequest request, std::shared_ptr<GenerateSink> sink)
    : request_(std::move(request)), sink_(std::move(sink)) {}

void GenerateCall::Start(const std::shared_ptr<GenerateCall>& self, v1::Inference::Stub& stub,
                         Duration timeout) {
  self->self_ = self;
  SetTimeout(self->context_, timeout);
  stub.async()->Generate(&self->context_, &self->request_, self.get());
  // The hold keeps OnDone away while no read is pending: Next() may come from any thread.
  self->AddHold();
  self->StartRead(&self->event_);
  self->StartCall();
}

void GenerateCall::Next() { StartRead(&event_); }

void GenerateCall::Cancel() { context_.TryCancel(); }

void GenerateCall::OnReadDone(bool ok) {
  if (ok) {
    sink_->OnEvent(std::move(event_));
  } else {
    RemoveHold();
  }
}

void GenerateCall::OnDone(const grpc::Status& status) {
  const std::shared_ptr<GenerateSink> sink = std::move(sink_);
  const std::shared_ptr<GenerateCall> self = std::move(self_);
  sink->OnDone(FromGrpc(status));
}

RouterClient::RouterClient(std::string address)
    : address_(std::move(address)), stub_(v1::Inference::NewStub(MakeChannel(address_))) {}

std::shared_ptr<GenerateCall> RouterClient::Generate(v1::GenerateRequest request,
                                                     std::shared_ptr<GenerateSink> sink,
                                                     Duration timeout) {
  auto call = std::make_shared<GenerateCall>(std::move(request), std::move(sink));
  GenerateCall::Start(call, *stub_, timeout);
  return call;
}

void RouterClient::Describe(Duration timeout,
                            std::function<void(absl::StatusOr<v1::DescribeResponse>)> done) {
  struct Call {
    grpc::ClientContext context;
    v1::DescribeRequest request;
    v1::DescribeResponse response;
  };

  auto call = std::make_shared<Call>();
  SetTimeout(call->context, timeout);
  stub_->async()->Describe(&call->context, &call->request, &call->response,
                           [call, done = std::move(done)](const grpc::Status& status) {
                             if (status.ok()) {
                               done(std::move(call->response));
                             } else {
                               done(FromGrpc(status));
                             }
                           });
}

}  // namespace switchyard
