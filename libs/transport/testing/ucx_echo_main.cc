// Echoes every message over UCX; for tests and benchmarks between processes.
// Usage: ucx_echo tcp|shm|auto ADDRESS. Prints the bound address, then serves until it is killed.
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>

#include "libs/transport/ucx_transport.h"

namespace switchyard {
namespace {

// Keeps an echoed message alive until its send is done. One owner.
class Echo final : public TransportHandler {
 public:
  explicit Echo(Transport& transport) : transport_(transport) {}

  void OnPeerUp(PeerHandle /*peer*/, bool /*accepted*/) override {}

  void OnPeerDown(PeerHandle /*peer*/, const absl::Status& /*why*/) override {}

  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override {
    const SendTicket ticket(next_ticket_++);
    std::vector<std::byte>& copy = sending_[ticket];
    copy.assign(message.begin(), message.end());
    const std::span<const std::byte> part(copy);
    if (transport_.Send(peer, {&part, 1}, ticket) != SendResult::kAccepted) {
      sending_.erase(ticket);
    }
  }

  void OnSendDone(PeerHandle /*peer*/, SendTicket ticket, const absl::Status& /*s*/) override {
    sending_.erase(ticket);
  }

 private:
  Transport& transport_;
  uint64_t next_ticket_ = 1;
  std::map<SendTicket, std::vector<std::byte>> sending_;
};

UcxOptions::Mode ModeOf(std::string_view name) {
  return name == "tcp"   ? UcxOptions::Mode::kTcp
         : name == "shm" ? UcxOptions::Mode::kShm
                         : UcxOptions::Mode::kAuto;
}

int Run(std::string_view mode, const std::string& address) {
  auto transport = CreateUcxTransport({.mode = ModeOf(mode)}, {});
  if (!transport.ok()) {
    std::fprintf(stderr, "%s\n", transport.status().ToString().c_str());
    return 1;
  }
  Echo echo(**transport);
  (*transport)->SetHandler(&echo);
  const absl::StatusOr<std::string> bound = (*transport)->Listen(address);
  if (!bound.ok()) {
    std::fprintf(stderr, "%s\n", bound.status().ToString().c_str());
    return 1;
  }
  std::printf("%s\n", bound->c_str());
  std::fflush(stdout);
  const pid_t parent = getppid();
  while (getppid() == parent) {  // Ends with whoever started it.
    (*transport)->Wait(std::chrono::milliseconds(200));
  }
  return 0;
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: ucx_echo tcp|shm|auto ADDRESS\n");
    return 2;
  }
  return switchyard::Run(argv[1], argv[2]);
}
