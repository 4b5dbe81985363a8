#include "loadtest/stream_socket.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <string_view>
#include <utility>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

namespace switchyard {

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(fd_, other.fd_);
  if (other.fd_ >= 0) {
    ::close(other.Release());
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) {
    ::close(fd_);
  }
}

int Descriptor::Release() { return std::exchange(fd_, -1); }

bool StreamSocket::Connect(const SocketAddress& address) {
  fd_ = Descriptor(
      ::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (fd_.get() < 0) {
    return false;
  }
  const int on = 1;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address.storage),
                   address.length) == 0 ||
         errno == EINPROGRESS;
}

bool StreamSocket::IsConnected() const {
  int error = 0;
  socklen_t size = sizeof(error);
  return ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

StreamSocket::Io StreamSocket::Send(std::string_view* bytes) {
  while (!bytes->empty()) {
    const ssize_t sent = ::send(fd_.get(), bytes->data(), bytes->size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes->remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Io::kWouldBlock;
    } else if (errno != EINTR) {
      return Io::kBroken;
    }
  }
  return Io::kDone;
}

StreamSocket::Io StreamSocket::Receive(char* buffer, size_t size, size_t* received) {
  while (true) {
    const ssize_t got = ::recv(fd_.get(), buffer, size, 0);
    if (got > 0) {
      *received = static_cast<size_t>(got);
      return Io::kDone;
    }
    if (got == 0) {
      return Io::kClosed;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return Io::kWouldBlock;
    }
    if (errno != EINTR) {
      return Io::kBroken;
    }
  }
}

uint64_t RaiseOpenFiles(uint64_t wanted) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return 0;
  }
  const rlim_t target = std::min<rlim_t>(wanted, limit.rlim_max);
  if (limit.rlim_cur < target) {
    const rlimit raised{.rlim_cur = target, .rlim_max = limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) {
      limit.rlim_cur = target;
    }
  }
  return limit.rlim_cur;
}

}  // namespace switchyard
