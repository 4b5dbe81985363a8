#ifndef SWITCHYARD_SERVICES_GATEWAY_ROUTER_CLIENT_H_
#define SWITCHYARD_SERVICES_GATEWAY_ROUTER_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/switchyard/v1/inference.grpc.pb.h"

#include "libs/base/clock.h"

namespace switchyard {

// GenerateSink hears about one Generate call. Calls come one at a time, on gRPC's threads.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  // The next event comes only after GenerateCall::Next().
  virtual void OnEvent(v1::GenerateEvent event) = 0;
  // Exactly once, as the last thing.
  virtual void OnDone(absl::Status status) = 0;
};

// GenerateCall is one open Generate stream. It keeps itself, its request and its sink alive until
// OnDone. Any thread.
class GenerateCall final : public grpc::ClientReadReactor<v1::GenerateEvent> {
 public:
  GenerateCall(v1::GenerateRequest request, std::shared_ptr<GenerateSink> sink);

  // Begins the call; `self` is this call.
  static void Start(const std::shared_ptr<GenerateCall>& self, v1::Inference::Stub& stub,
                    Duration timeout);

  // Asks for the next event; once after each OnEvent, also when nobody wants it any more.
  void Next();

  // OnDone follows soon, with Cancelled unless the call was over.
  void Cancel();

 private:
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

  const v1::GenerateRequest request_;
  std::shared_ptr<GenerateSink> sink_;
  std::shared_ptr<GenerateCall> self_;  // Until OnDone.
  grpc::ClientContext context_;
  v1::GenerateEvent event_;
};

// RouterClient speaks to one router. Any thread. Outlives its calls: see RouterPool.
class RouterClient {
 public:
  explicit RouterClient(std::string address);

  std::shared_ptr<GenerateCall> Generate(v1::GenerateRequest request,
                                         std::shared_ptr<GenerateSink> sink, Duration timeout);

  // `done` runs once, on a gRPC thread.
  void Describe(Duration timeout, std::function<void(absl::StatusOr<v1::DescribeResponse>)> done);

  const std::string& address() const { return address_; }

 private:
  const std::string address_;
  const std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_ROUTER_CLIENT_H_
