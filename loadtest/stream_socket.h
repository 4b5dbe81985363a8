#ifndef SWITCHYARD_LOADTEST_STREAM_SOCKET_H_
#define SWITCHYARD_LOADTEST_STREAM_SOCKET_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "loadtest/target.h"

namespace switchyard {

// Descriptor closes its file descriptor. Move-only; one owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}

  Descriptor(Descriptor&& other) noexcept : fd_(other.Release()) {}

  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int get() const { return fd_; }

  int Release();

 private:
  int fd_;
};

// StreamSocket is a TCP connection that never blocks. One owner.
class StreamSocket {
 public:
  enum class Io : uint8_t { kDone, kWouldBlock, kClosed, kBroken };

  StreamSocket() = default;

  // Begins to connect; false when that fails at once. Writable once it is decided.
  bool Connect(const SocketAddress& address);
  // After it became writable: whether the connection stands.
  bool IsConnected() const;

  // Sends from `*bytes` and shortens it by what was sent. kDone when all was.
  Io Send(std::string_view* bytes);
  // Receives up to `size` bytes; kDone sets `*received` to more than 0.
  Io Receive(char* buffer, size_t size, size_t* received);

  void Close() { fd_ = Descriptor(); }

  int fd() const { return fd_.get(); }

 private:
  Descriptor fd_;
};

// Raises this process's limit of open files as far as it may, to `wanted` at most, and returns the
// limit that holds now.
uint64_t RaiseOpenFiles(uint64_t wanted);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_STREAM_SOCKET_H_
