#ifndef SWITCHYARD_LIBS_HTTP_INTERNAL_LISTENER_H_
#define SWITCHYARD_LIBS_HTTP_INTERNAL_LISTENER_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/status/status.h"

namespace switchyard::internal {

// Listener accepts on its own thread, until EAGAIN each time, so that a burst of connects does not
// wait for busy connection threads. Out of descriptors it waits a little and tries again.
//
// One owner. `on_socket(fd, remote)` runs on the listener's thread and owns the non-blocking fd.
class Listener {
 public:
  using OnSocket = std::function<void(int fd, std::string remote)>;

  explicit Listener(OnSocket on_socket);
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  absl::Status Start(const std::string& address, const std::string& name);
  void Stop();

  const std::string& address() const { return address_; }

 private:
  absl::Status Bind(const std::string& address);
  void Run();
  void AcceptAll();

  const OnSocket on_socket_;
  std::string address_;
  int listen_fd_ = -1;
  int stop_fd_ = -1;
  bool out_of_descriptors_ = false;  // Owner: the listener's thread.
  std::thread thread_;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_HTTP_INTERNAL_LISTENER_H_
