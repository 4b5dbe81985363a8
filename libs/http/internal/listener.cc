#include "libs/http/internal/listener.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libs/base/status.h"
#include "libs/base/thread_name.h"
#include "libs/http/host_port.h"

namespace switchyard::internal {
namespace {

constexpr int kBacklog = 4096;
constexpr int kDescriptorWaitMs = 100;

std::string NameOf(const sockaddr_storage& storage, socklen_t size) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&storage), size, host, sizeof(host), port,
                  sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  const std::string name = host;
  return name.find(':') == std::string::npos ? name + ":" + port : "[" + name + "]:" + port;
}

absl::StatusOr<int> BindOne(const addrinfo& info, const std::string& address) {
  const int fd = socket(info.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return Unavailable("listen on {}: {}", address, std::strerror(errno));
  }
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(fd, info.ai_addr, info.ai_addrlen) != 0 || listen(fd, kBacklog) != 0) {
    const std::string why = std::strerror(errno);
    close(fd);
    return Unavailable("listen on {}: {}", address, why);
  }
  return fd;
}

}  // namespace

Listener::Listener(OnSocket on_socket) : on_socket_(std::move(on_socket)) {}

Listener::~Listener() { Stop(); }

absl::Status Listener::Bind(const std::string& address) {
  SY_ASSIGN_OR_RETURN(const HostPort host_port, ParseHostPort(address));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(host_port.host.c_str(), std::to_string(host_port.port).c_str(), &hints, &found);
  if (error != 0) {
    return InvalidArgument("address '{}': {}", address, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> guard(found, freeaddrinfo);
  SY_ASSIGN_OR_RETURN(listen_fd_, BindOne(*found, address));
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(listen_fd_, reinterpret_cast<sockaddr*>(&bound), &size);
  address_ = NameOf(bound, size);
  return absl::OkStatus();
}

absl::Status Listener::Start(const std::string& address, const std::string& name) {
  SY_RETURN_IF_ERROR(Bind(address));
  stop_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stop_fd_ < 0) {
    return Unavailable("listen on {}: {}", address, std::strerror(errno));
  }
  thread_ = std::thread([this, name] {
    SetThreadName(name);
    Run();
  });
  return absl::OkStatus();
}

void Listener::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(stop_fd_, &one, sizeof(one));
    thread_.join();
  }
  for (int* fd : {&listen_fd_, &stop_fd_}) {
    if (*fd >= 0) {
      close(*fd);
      *fd = -1;
    }
  }
}

void Listener::Run() {
  while (true) {
    // A full descriptor table leaves the listening socket readable: then only the timeout waits.
    pollfd fds[2] = {{.fd = stop_fd_, .events = POLLIN, .revents = 0},
                     {.fd = out_of_descriptors_ ? -1 : listen_fd_, .events = POLLIN, .revents = 0}};
    poll(fds, 2, out_of_descriptors_ ? kDescriptorWaitMs : -1);
    if (fds[0].revents != 0) {
      return;
    }
    AcceptAll();
  }
}

void Listener::AcceptAll() {
  out_of_descriptors_ = false;
  while (true) {
    sockaddr_storage peer{};
    socklen_t size = sizeof(peer);
    const int fd = accept4(listen_fd_, reinterpret_cast<sockaddr*>(&peer), &size,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) {
        continue;
      }
      out_of_descriptors_ =
          errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
      return;
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    on_socket_(fd, NameOf(peer, size));
  }
}

}  // namespace switchyard::internal
