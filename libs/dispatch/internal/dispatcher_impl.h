#ifndef SWITCHYARD_LIBS_DISPATCH_INTERNAL_DISPATCHER_IMPL_H_
#define SWITCHYARD_LIBS_DISPATCH_INTERNAL_DISPATCHER_IMPL_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "libs/dispatch/dispatch_plan.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/tensor/buffer_pool.h"
#include "libs/wire/frame.h"
#include "libs/wire/hello.h"

namespace switchyard {

// A fragment of a call, as it waits in a shard's outbox.
struct FragmentRef {
  uint32_t slot = 0;         // Of the call.
  uint64_t call_number = 0;  // Void once the slot holds another call.
  uint32_t fragment = 0;
};

// One shard's connection, from wanting it to losing it. One owner, as the dispatcher.
struct ShardLink {
  enum class State : uint8_t { kDown, kConnecting, kHello, kReady, kRefused };

  struct InFlight {
    uint64_t sequence = 0;
    uint32_t entries = 0;
    Instant deadline;  // After which no answer is counted on.
  };

  ShardInfo info;
  bool wanted = true;  // Named by the current placement.
  State state = State::kDown;
  PeerHandle peer;
  Incarnation incarnation;     // Of the accepted Hello.
  uint32_t entry_credits = 0;  // From the accepted Hello.
  uint32_t entries_in_flight = 0;
  Instant next_event;  // Down, refused: connect again. Connecting, hello: give up. Else unused.
  std::string why;     // Of the last loss or refusal.
  std::deque<FragmentRef> outbox;
  std::vector<InFlight> in_flight;

  std::string Name() const { return fmt::format("shard {} ({})", info.shard, info.address); }
};

// Sent at most once per attempt; a later redirection would raise `attempt` and change `link`.
struct Fragment {
  enum class State : uint8_t { kQueued, kInFlight, kDone };

  ShardLink* link = nullptr;
  uint64_t sequence = 0;
  uint8_t attempt = 0;
  State state = State::kQueued;
  bool in_room = false;  // The answer came before Await() and lies in the call's room.
  Instant sent_at;
};

// One Send() until its Await().
struct Call {
  bool active = false;
  uint64_t number = 0;
  RoutedRows rows;
  EpochId epoch;
  DispatchPlan plan;
  std::vector<Fragment> fragments;
  uint32_t left = 0;  // Fragments not done.
  Instant deadline;
  absl::Status status;
  float* out = nullptr;           // Set by Await().
  std::unique_ptr<float[]> room;  // For answers that come earlier; kept between calls.
  size_t room_floats = 0;
};

class Dispatcher::Impl {
 public:
  Impl(const DispatcherOptions& options, Transport& transport, const Clock& clock,
       DispatchMetrics& metrics);

  // dispatcher.cc: calls.
  absl::StatusOr<DispatchTicket> Send(const RoutedRows& rows);
  absl::Status Await(DispatchTicket ticket, std::span<float> out);
  bool Poll();
  void WaitForWork(Duration timeout);
  void CloseAll();
  Usage usage() const;

  // dispatcher_links.cc: connections.
  void SetRoutes(std::shared_ptr<const RouteTable> routes);
  absl::Status Ready() const;
  std::vector<ShardState> ShardStates() const;
  void OnPeerUp(PeerHandle peer, bool accepted);
  void OnPeerDown(PeerHandle peer, const absl::Status& why);

  // dispatcher_frames.cc: frames.
  void OnMessage(PeerHandle peer, std::span<const std::byte> message);
  void OnSendDone(SendTicket ticket);

  Transport& transport() { return transport_; }

  EpochId newest_epoch_seen() const { return newest_epoch_seen_; }

 private:
  struct SendSlot {
    BufferLease buffer;
    uint64_t number = 0;
  };

  // dispatcher.cc
  absl::Status CheckRows(const RoutedRows& rows);
  absl::Status FillCall(Call& call, uint32_t slot, const RoutedRows& rows);
  void CopyFromRoom(Call& call);
  void TakeLateAnswers(const Call& call);
  void Expire(Call& call);
  absl::Status Finish(Call& call);

  size_t RowFloats() const { return options_.hidden_size; }

  // dispatcher_links.cc
  ShardLink* LinkOf(PeerHandle peer);
  ShardLink& FindOrAddLink(const ShardInfo& info);
  void Maintain(Instant now);
  void MaintainLink(ShardLink& link, Instant now);
  void Connect(ShardLink& link, Instant now);
  void Lose(ShardLink& link, ShardLink::State state, const absl::Status& why);
  void Refuse(ShardLink& link, const absl::Status& why);
  void FailCalls(const ShardLink& link, const absl::Status& why);
  void RemoveUnwantedLinks();
  absl::Status FindUncovered() const;

  // dispatcher_frames.cc
  void SendHello(ShardLink& link);
  void OnHelloAck(ShardLink& link, const ParsedFrame& frame);
  void OnCombine(ShardLink& link, const ParsedFrame& frame);
  Fragment* FindFragment(const ShardLink& link, const FrameHeader& header);
  absl::Status CheckAnswer(const Call& call, uint32_t index, const FrameHeader& header) const;
  bool StoreRows(Call& call, uint32_t index, const ParsedFrame& frame);
  void ReleaseCredits(ShardLink& link, uint64_t sequence);
  void PurgeCredits(ShardLink& link);
  bool HasCredits(const ShardLink& link, uint32_t entries) const;
  void PumpAll();
  bool PumpOne(ShardLink& link);
  bool MoreFollows(const Call& call, const FragmentRef& ref) const;
  absl::StatusOr<size_t> Encode(const Call& call, const FragmentRef& ref, std::span<std::byte> out);
  uint32_t TakeSendSlot(BufferLease buffer);
  SendResult SendBuffer(ShardLink& link, BufferLease buffer, size_t bytes);

  const DispatcherOptions options_;
  Transport& transport_;
  const Clock& clock_;
  DispatchMetrics& metrics_;
  const uint32_t entries_max_;  // Per fragment.

  std::shared_ptr<const RouteTable> routes_;
  std::vector<ShardLink*> route_links_;  // By shard index of routes_.
  std::vector<std::unique_ptr<ShardLink>> links_;
  absl::flat_hash_map<PeerHandle, ShardLink*> links_by_peer_;
  bool unwanted_links_ = false;                // Some may be in links_.
  Instant next_event_ = Instant::max();        // Earliest among links.
  mutable std::optional<absl::Status> ready_;  // Cached until a connection or the routes change.

  std::vector<Call> calls_;  // tickets_max slots.
  uint32_t active_calls_ = 0;
  uint64_t next_call_number_ = 1;
  uint64_t next_sequence_ = 1;
  std::vector<uint8_t> usable_;  // Scratch of Send().
  DispatchPlanner planner_;
  EpochId newest_epoch_seen_;

  BufferPool pool_;
  std::vector<SendSlot> send_slots_;  // After pool_: leases die first.
  std::vector<uint32_t> free_send_slots_;
  uint64_t next_send_number_ = 1;
  uint32_t frames_waiting_ = 0;  // In all outboxes.
  bool pumping_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_DISPATCH_INTERNAL_DISPATCHER_IMPL_H_
