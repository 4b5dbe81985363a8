#ifndef SWITCHYARD_LIBS_TRANSPORT_TESTING_FAULTY_TRANSPORT_H_
#define SWITCHYARD_LIBS_TRANSPORT_TESTING_FAULTY_TRANSPORT_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "libs/base/clock.h"
#include "libs/base/rng.h"
#include "libs/transport/transport.h"

namespace switchyard {

// Probabilities per sent message; at most one fault hits a message.
struct FaultOptions {
  float drop = 0;
  float duplicate = 0;
  float corrupt = 0;  // One bit flips.
  float delay = 0;    // Held for `delay_by`; later messages overtake it.
  float reorder = 0;  // Held until the next message to that peer has been sent, or `delay_by`.
  Duration delay_by = std::chrono::milliseconds(1);
};

// FaultyTransport wraps any transport and harms what is sent through it, by seed. Received messages
// pass untouched: wrap both ends to harm both directions. A harmed send completes at once with OK.
//
// One owner, as the transport inside.
class FaultyTransport final : public Transport, private TransportHandler {
 public:
  struct Counts {
    uint64_t dropped = 0;
    uint64_t duplicated = 0;
    uint64_t corrupted = 0;
    uint64_t delayed = 0;
    uint64_t reordered = 0;
  };

  // `clock` must outlive this.
  FaultyTransport(std::unique_ptr<Transport> inner, FaultOptions options, uint64_t seed,
                  const Clock& clock);
  ~FaultyTransport() override;

  // From now on; messages already held keep their time.
  void SetOptions(const FaultOptions& options) { options_ = options; }

  const Counts& counts() const { return counts_; }

  void SetHandler(TransportHandler* handler) override { handler_ = handler; }

  absl::StatusOr<std::string> Listen(const std::string& address) override;
  absl::StatusOr<PeerHandle> Connect(const std::string& address) override;
  void Close(PeerHandle peer) override;
  SendResult Send(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                  SendTicket ticket) override;
  bool Progress() override;
  bool Wait(Duration timeout) override;

  void Wake() override { inner_->Wake(); }

  size_t queued_bytes() const override { return inner_->queued_bytes(); }

  size_t peer_count() const override { return inner_->peer_count(); }

  std::string description() const override { return "faulty " + inner_->description(); }

  const TransportStats& stats() const override { return inner_->stats(); }

 private:
  enum class Fault : uint8_t { kNone, kDrop, kDuplicate, kCorrupt, kDelay, kReorder };

  struct Held {
    PeerHandle peer{};
    Instant due{};
    bool until_next = false;
    std::vector<std::byte> bytes{};
  };

  struct InFlight {
    bool ours = false;  // A copy of this wrapper; its owner was told long ago.
    SendTicket ticket{};
    std::vector<std::byte> bytes{};
  };

  void OnPeerUp(PeerHandle peer, bool accepted) override;
  void OnPeerDown(PeerHandle peer, const absl::Status& why) override;
  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override;
  void OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& status) override;

  Fault Draw();
  SendResult Forward(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                     SendTicket ticket);
  void SendCopy(PeerHandle peer, std::vector<std::byte> bytes);
  bool ReleaseDue();
  void ReleaseReordered(PeerHandle peer);

  const std::unique_ptr<Transport> inner_;
  FaultOptions options_;
  Rng rng_;
  const Clock& clock_;
  TransportHandler* handler_ = nullptr;
  Counts counts_;
  uint64_t next_ticket_ = 1;
  std::map<SendTicket, InFlight> in_flight_;
  std::vector<Held> held_;
  std::map<PeerHandle, bool> up_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_TESTING_FAULTY_TRANSPORT_H_
