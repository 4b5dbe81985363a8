#include "libs/transport/internal/ucx_settings.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <ucs/config/global_opts.h>
#include <unistd.h>

#include "libs/base/status.h"

namespace switchyard::internal {
namespace {

using Setting = std::pair<std::string, std::string>;

bool SetInEnvironment(const std::string& key) {
  const std::string prefix = "UCX_" + key + "=";
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    if (std::string_view(*entry).starts_with(prefix)) {
      return true;
    }
  }
  return false;
}

// Settings of single transports. They go through the environment, which every version reads alike:
// ucp_config_modify() wants their names with a prefix in one version and without in another, and
// warns about each that no open device used. Values are measurements on loopback.
constexpr std::pair<const char*, const char*> kTransportSettings[] = {
    // PEER error mode silently drops shared memory without these.
    {"UCX_POSIX_ERROR_HANDLING", "y"},
    {"UCX_SYSV_ERROR_HANDLING", "y"},
    // One 14 KiB row is one fragment: halves its round trip. 64k hangs (a 16-bit length).
    {"UCX_POSIX_SEG_SIZE", "32k"},
    {"UCX_SYSV_SEG_SIZE", "32k"},
    // Halves the round trip of 112 KiB over TCP.
    {"UCX_TCP_TX_SEG_SIZE", "64k"},
    // A restarted listener gets its port although old connections are in TIME_WAIT.
    {"UCX_TCP_CM_REUSEADDR", "y"},
    {"UCX_TCP_CONN_NB", "y"},
    {"UCX_TCP_KEEPIDLE", "1s"},
    {"UCX_TCP_KEEPINTVL", "1s"},
    {"UCX_TCP_KEEPCNT", "3"},
    // From 1.22 on; older versions do not look at them.
    {"UCX_TCP_USER_TIMEOUT", "2s"},
    {"UCX_TCP_CM_USER_TIMEOUT", "2s"},
};

// Settings of a context; later ones win.
std::vector<Setting> ContextSettings(const UcxOptions& options, bool loopback) {
  std::vector<Setting> settings = {{"KEEPALIVE_INTERVAL", "1s"}};
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  ucp_get_version(&major, &minor, &release);
  const bool splits_intra_inter = major > 1 || minor >= 22;
  switch (options.mode) {
    case UcxOptions::Mode::kAuto:
      // Shared memory wants rendezvous for large messages, TCP never does. Versions that cannot
      // tell the two apart go by whether we stay on this machine.
      settings.emplace_back("RNDV_THRESH", splits_intra_inter ? "intra:auto,inter:inf"
                                           : loopback         ? "auto"
                                                              : "inf");
      settings.emplace_back("RNDV_SCHEME", "get_zcopy");
      break;
    case UcxOptions::Mode::kTcp:
      settings.emplace_back("TLS", "tcp");
      settings.emplace_back("RNDV_THRESH", "inf");
      break;
    case UcxOptions::Mode::kShm:
      // TCP carries the connection set-up and notices the death of the peer.
      settings.emplace_back("TLS", "posix,sysv,cma,tcp");
      settings.emplace_back("RNDV_SCHEME", "get_zcopy");
      break;
  }
  if (!options.devices.empty()) {
    settings.emplace_back("NET_DEVICES", options.devices);
  } else if (loopback) {
    settings.emplace_back("NET_DEVICES", "lo");
  }
  if (!options.tls.empty()) {
    settings.emplace_back("TLS", options.tls);
  }
  settings.insert(settings.end(), options.overrides.begin(), options.overrides.end());
  return settings;
}

// A machine without an RDMA card makes UCX say "failed to open rdmacm", and a version that does not
// know all of kTransportSettings lists those; both are harmless.
void QuietLog() {
  if (!SetInEnvironment("LOG_LEVEL")) {
    ucs_global_opts_set_value("LOG_LEVEL", "warn");
  }
  if (!SetInEnvironment("WARN_UNUSED_ENV_VARS")) {
    ucs_global_opts_set_value("WARN_UNUSED_ENV_VARS", "n");
  }
}

}  // namespace

absl::StatusOr<SocketAddress> ParseSocketAddress(const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    return InvalidArgument("address '{}' is not host:port", address);
  }
  std::string host = address.substr(0, colon);
  const std::string port_text = address.substr(colon + 1);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  }
  const bool digits =
      !port_text.empty() && port_text.size() <= 5 &&
      std::all_of(port_text.begin(), port_text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const unsigned long port = digits ? std::strtoul(port_text.c_str(), nullptr, 10) : 65536;
  if (port > 65535) {
    return InvalidArgument("address '{}' has no port in 0..65535", address);
  }
  if (host == "localhost") {
    host = "127.0.0.1";
  }
  SocketAddress parsed;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&parsed.storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&parsed.storage);
  if (!bracketed && inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    parsed.bytes = sizeof(sockaddr_in);
    parsed.loopback = (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
    return parsed;
  }
  if (bracketed && inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    parsed.bytes = sizeof(sockaddr_in6);
    if (IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr)) {
      // Its TCP has no device for ::1, and 1.13 corrupts the heap when it tries 127.0.0.1 instead.
      return InvalidArgument("address '{}': UCX cannot use IPv6 loopback, use 127.0.0.1", address);
    }
    return parsed;
  }
  return InvalidArgument("address '{}' has no numeric host", address);
}

std::string FormatSocketAddress(const sockaddr_storage& storage) {
  char host[INET6_ADDRSTRLEN] = {};
  if (storage.ss_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&storage);
    inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
    return fmt::format("[{}]:{}", host, ntohs(v6->sin6_port));
  }
  const auto* v4 = reinterpret_cast<const sockaddr_in*>(&storage);
  inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
  return fmt::format("{}:{}", host, ntohs(v4->sin_port));
}

void ExportUcxDefaults() {
  for (const auto& [name, value] : kTransportSettings) {
    setenv(name, value, /*overwrite=*/0);
  }
}

absl::StatusOr<ucp_context_h> CreateUcpContext(const UcxOptions& options, bool loopback) {
  QuietLog();
  ucp_config_t* config = nullptr;
  if (const ucs_status_t status = ucp_config_read(nullptr, nullptr, &config); status != UCS_OK) {
    return FromUcs(status, "ucp_config_read");
  }
  for (const auto& [key, value] : ContextSettings(options, loopback)) {
    if (!SetInEnvironment(key)) {
      ucp_config_modify(config, key.c_str(), value.c_str());
    }
  }
  ucp_params_t params = {};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_context_h context = nullptr;
  const ucs_status_t status = ucp_init(&params, config, &context);
  ucp_config_release(config);
  if (status != UCS_OK) {
    return FromUcs(status, "ucp_init");
  }
  return context;
}

absl::Status FromUcs(ucs_status_t status, const char* what) {
  return Unavailable("{}: {}", what, ucs_status_string(status));
}

std::string LaneOf(ucp_ep_h endpoint) {
  char* text = nullptr;
  size_t bytes = 0;
  FILE* stream = open_memstream(&text, &bytes);
  if (stream == nullptr) {
    return "";
  }
  ucp_ep_print_info(endpoint, stream);
  std::fclose(stream);
  const std::string info(text, bytes);
  std::free(text);
  // "#  lane[0]:  2:tcp/lo.0 md[1]  -> addr[0].md[1]/tcp/sysdev[255]  am am_bw#0 ..."
  for (size_t begin = info.find("lane["); begin != std::string::npos;
       begin = info.find("lane[", begin + 1)) {
    const std::string line = info.substr(begin, info.find('\n', begin) - begin);
    const size_t name = line.find(':', line.find("]:") + 2);
    if (name == std::string::npos || line.find(" am") == std::string::npos) {
      continue;
    }
    return line.substr(name + 1, line.find_first_of(". ", name + 1) - name - 1);
  }
  return "";
}

}  // namespace switchyard::internal
