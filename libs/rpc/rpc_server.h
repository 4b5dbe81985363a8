#ifndef SWITCHYARD_LIBS_RPC_RPC_SERVER_H_
#define SWITCHYARD_LIBS_RPC_RPC_SERVER_H_

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include <grpcpp/server.h>
#include <grpcpp/support/config.h>

#include "absl/status/statusor.h"

namespace grpc {
class Service;
}

namespace switchyard {

struct RpcServerOptions {
  std::string address;  // "host:port"; port 0 picks one.
  int message_bytes_max = 64 * 1024 * 1024;
  int streams_max = 8192;  // Concurrent calls per connection.
};

// RpcServer serves callback-API services on one address. Built listening; Stop() is idempotent.
//
// Any thread. Services must outlive it.
class RpcServer {
 public:
  // Unavailable when the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options, const std::vector<grpc::Service*>& services);
  ~RpcServer();

  // "host:port" with the real port.
  const std::string& address() const { return address_; }

  // Ends open calls after `grace` and joins.
  void Stop(std::chrono::milliseconds grace);

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address);

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_RPC_RPC_SERVER_H_
