#ifndef SWITCHYARD_LIBS_HTTP_HOST_PORT_H_
#define SWITCHYARD_LIBS_HTTP_HOST_PORT_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace switchyard {

// "host:port", taken apart. A value; any thread. The host of "[::1]:80" is "::1".
struct HostPort {
  std::string host;
  uint16_t port = 0;

  std::string ToString() const;
};

// InvalidArgument unless `text` is "host:port" or "[v6]:port".
absl::StatusOr<HostPort> ParseHostPort(std::string_view text);

// True for "localhost", 127.0.0.0/8 and ::1: what no other machine can reach.
bool IsLoopbackHost(std::string_view host);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_HTTP_HOST_PORT_H_
