#ifndef SWITCHYARD_LIBS_RPC_CHANNEL_H_
#define SWITCHYARD_LIBS_RPC_CHANNEL_H_

#include <chrono>
#include <memory>
#include <string>

#include <grpcpp/channel.h>

namespace switchyard {

struct ChannelOptions {
  int message_bytes_max = 64 * 1024 * 1024;
  // A peer that answers no keepalive ping for this long is taken for lost.
  std::chrono::milliseconds keepalive_interval = std::chrono::seconds(10);
  std::chrono::milliseconds keepalive_timeout = std::chrono::seconds(5);
  std::chrono::milliseconds reconnect_backoff_max = std::chrono::seconds(1);
};

// A channel to "host:port" that connects lazily and again after a loss. It has its own connection
// (no global subchannel sharing). Any thread.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const ChannelOptions& options = {});

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_RPC_CHANNEL_H_
