#ifndef SWITCHYARD_SERVICES_GATEWAY_TESTING_FAKE_ROUTER_H_
#define SWITCHYARD_SERVICES_GATEWAY_TESTING_FAKE_ROUTER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

#include "proto/switchyard/v1/inference.grpc.pb.h"

#include "libs/rpc/rpc_server.h"

namespace switchyard {

// FakeRouter is a router whose answers a test writes down: the tokens of the script, one per event.
//
// Any thread. It listens on loopback while it lives.
class FakeRouter final : public v1::Inference::CallbackService {
 public:
  struct Script {
    std::vector<uint32_t> tokens = {};
    v1::Finish::Reason finish = v1::Finish::REASON_STOP;
    bool hangs = false;                      // After the tokens, until cancelled.
    std::optional<absl::Status> error = {};  // After the tokens, instead of a finish.
    size_t error_tokens = SIZE_MAX;          // Tokens before the error.
    bool serves_resumed = false;             // A resumed call meets neither error nor hang.
    float logprob = -0.5F;
  };

  FakeRouter();
  ~FakeRouter() override;

  void SetScript(Script script);
  void SetReady(bool ready, const std::string& why = "");

  const std::string& address() const { return server_->address(); }

  std::vector<v1::GenerateRequest> requests() const;
  // True when that many calls were cancelled within 10 s.
  bool AwaitCancelled(int count) const;

  grpc::ServerWriteReactor<v1::GenerateEvent>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Describe(grpc::CallbackServerContext* context,
                                     const v1::DescribeRequest* request,
                                     v1::DescribeResponse* response) override;

  static constexpr uint32_t kContextTokens = 256;

 private:
  class Stream;

  void CountCancelled();

  mutable absl::Mutex mutex_;
  Script script_ ABSL_GUARDED_BY(mutex_);
  bool ready_ ABSL_GUARDED_BY(mutex_) = true;
  std::string not_ready_reason_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::GenerateRequest> requests_ ABSL_GUARDED_BY(mutex_);
  int cancelled_ ABSL_GUARDED_BY(mutex_) = 0;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_TESTING_FAKE_ROUTER_H_
