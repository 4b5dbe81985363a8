#ifndef SWITCHYARD_LIBS_TRANSPORT_TESTING_RECORDING_HANDLER_H_
#define SWITCHYARD_LIBS_TRANSPORT_TESTING_RECORDING_HANDLER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "libs/transport/transport.h"

namespace switchyard {

// RecordingHandler keeps everything that happened, for a test to look at. `on_message`, if set, is
// called as well.
//
// One owner: the thread of its transport. Must outlive the transport or be taken from it.
class RecordingHandler final : public TransportHandler {
 public:
  struct Message {
    PeerHandle peer{};
    std::vector<std::byte> bytes{};
    bool aligned = false;
  };

  struct Done {
    PeerHandle peer{};
    SendTicket ticket{};
    absl::Status status{};
  };

  void OnPeerUp(PeerHandle peer, bool accepted) override { up.emplace_back(peer, accepted); }

  void OnPeerDown(PeerHandle peer, const absl::Status& why) override {
    down.emplace_back(peer, why);
  }

  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override {
    messages.push_back({.peer = peer,
                        .bytes = {message.begin(), message.end()},
                        .aligned = reinterpret_cast<uintptr_t>(message.data()) % 16 == 0});
    if (on_message) {
      on_message(peer, message);
    }
  }

  void OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& status) override {
    done.push_back({.peer = peer, .ticket = ticket, .status = status});
  }

  std::vector<std::pair<PeerHandle, bool>> up;
  std::vector<std::pair<PeerHandle, absl::Status>> down;
  std::vector<Message> messages;
  std::vector<Done> done;
  std::function<void(PeerHandle, std::span<const std::byte>)> on_message;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_TESTING_RECORDING_HANDLER_H_
