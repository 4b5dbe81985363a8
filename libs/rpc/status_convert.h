#ifndef SWITCHYARD_LIBS_RPC_STATUS_CONVERT_H_
#define SWITCHYARD_LIBS_RPC_STATUS_CONVERT_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace switchyard {

// The codes of absl and gRPC are numbered alike; messages are kept. Any thread.
grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_RPC_STATUS_CONVERT_H_
