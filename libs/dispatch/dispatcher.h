#ifndef SWITCHYARD_LIBS_DISPATCH_DISPATCHER_H_
#define SWITCHYARD_LIBS_DISPATCH_DISPATCHER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/dispatch/dispatch_metrics.h"
#include "libs/placement/route_table.h"
#include "libs/tensor/dtype.h"
#include "libs/transport/transport.h"

namespace switchyard {

struct DispatcherOptions {
  uint32_t hidden_size = 0;
  uint32_t top_k = 0;
  Dtype row_dtype = Dtype::kF32;  // Of rows on the wire, both directions.
  std::string model_digest;       // Checked in the Hello against each shard's.
  std::string numerics_id;        // Likewise.
  Incarnation incarnation;        // Of this router.
  uint32_t rows_max = 8192;       // Per Send.
  uint32_t tickets_max = 4;       // Sends not yet awaited.
  Duration call_deadline = std::chrono::seconds(5);
  Duration reconnect_backoff = std::chrono::milliseconds(100);
  Duration refused_backoff =
      std::chrono::seconds(1);  // Before a shard that was refused is tried again.
  Duration handshake_timeout = std::chrono::seconds(2);  // From connecting to an accepted Hello.
  uint32_t shard_frames_max = 60;   // In flight to one shard; the shard's own limit counts too.
  uint32_t send_buffers_max = 512;  // Frames encoded and not yet handed to the network.
};

// Rows of one layer whose experts the gate has chosen. All spans live until the matching Await
// returns.
struct RoutedRows {
  LayerId layer;
  uint32_t row_count = 0;
  std::span<const float> rows;        // [row_count][hidden_size], normed input of the experts.
  std::span<const uint16_t> experts;  // [row_count][top_k], distinct within a row.
};

using DispatchTicket = StrongId<struct DispatchTag, uint64_t>;

// Dispatcher sends rows to the shards that hold their experts and brings one row back per
// (row, expert). It owns the connections of a router to its shards.
//
// Owner: the step thread, which also owns `transport`. Results do not depend on shard, placement,
// order of arrival, duplication or repetition: a row of output is a pure function of (weights,
// row).
class Dispatcher final : public TransportHandler {
 public:
  // `transport` and `clock` outlive the dispatcher, which installs itself as the handler.
  Dispatcher(DispatcherOptions options, Transport& transport, const Clock& clock,
             DispatchMetrics& metrics);
  ~Dispatcher() override;

  // Adopts a placement: connects to shards that are new, closes those that are gone. Rows sent
  // before keep their table. Older epochs than the current one are ignored.
  void SetRoutes(std::shared_ptr<const RouteTable> routes);

  // OK when every expert of every layer has a holder with a connection whose Hello was accepted;
  // else Unavailable naming what is missing ("no shard connected for layer 1 expert 5 (epoch 3)").
  absl::Status Ready() const;

  // Sends rows; the answer is collected by Await. Unavailable when a needed shard is not connected.
  absl::StatusOr<DispatchTicket> Send(const RoutedRows& rows);

  // Waits (sleeping, with the transport progressing) until each (row, slot) has its expert's row,
  // and writes them to `out` [row_count][top_k][hidden_size]. Unavailable when a shard is lost,
  // DeadlineExceeded when one does not answer in time; the ticket is then void and late answers are
  // dropped and counted. Every ticket must be awaited exactly once.
  absl::Status Await(DispatchTicket ticket, std::span<float> out);

  // Lets connections make progress; called by the step loop while it has nothing else to do.
  bool Poll();

  // Sleeps in the transport until something happens, Wake() (any thread) or `timeout`.
  void WaitForWork(Duration timeout);
  void Wake();

  // One line per shard of the current placement: id, address, state, for status pages.
  struct ShardState {
    ShardId shard;
    std::string address;
    std::string state;  // "ready", "connecting", "refused: …".
  };

  std::vector<ShardState> ShardStates() const;

  // Buffers, tickets and queued bytes in use; all zero when idle (leak checks).
  struct Usage {
    size_t tickets = 0;
    size_t buffers = 0;
    size_t queued_bytes = 0;
  };

  Usage usage() const;

  // The newest placement epoch that any shard has named in an answer; 0 when none did.
  EpochId newest_epoch_seen() const;

  void OnPeerUp(PeerHandle peer, bool accepted) override;
  void OnPeerDown(PeerHandle peer, const absl::Status& why) override;
  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override;
  void OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& status) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// out_row += (sum over slots, in slot order from zero, of weight[slot] * expert_rows[slot]) +
// shared_row, in fp32. `expert_rows` [row_count][top_k][hidden_size], `weights` [row_count][top_k],
// `shared` (null: none) and `out` [row_count][hidden_size].
struct CombineArgs {
  uint32_t row_count = 0;
  uint32_t top_k = 0;
  uint32_t hidden_size = 0;
  const float* expert_rows = nullptr;
  const float* weights = nullptr;
  const float* shared = nullptr;
  float* out = nullptr;
};

// Any thread; calls on different rows may run at once.
void Combine(const CombineArgs& args);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_DISPATCH_DISPATCHER_H_
