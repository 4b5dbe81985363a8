#ifndef SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_PEER_H_
#define SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_PEER_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>

#include <ucp/api/ucp.h>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/transport/internal/receive_pool.h"
#include "libs/transport/transport.h"

// The book-keeping of UcxTransport: connections, operations in flight, and what UCX callbacks leave
// behind for Progress(). One owner, as the transport.
namespace switchyard::internal {

class UcxTransport;

constexpr size_t kUcxPartsMax = 16;
constexpr size_t kHandshakeBytesMax = 4096;  // Of buffers, before the connection is up.
constexpr uint32_t kAmMagic = 0x54595753;    // "SWYT", little-endian.
constexpr uint16_t kAmVersion = 1;

enum class AmKind : uint16_t { kHello = 1, kHelloAck = 2, kData = 3 };

// The user header of every active message. Sequence numbers count the messages of one direction of
// one connection from 0: eager and rendezvous messages may overtake each other inside UCX.
//   magic u32 | version u16 | kind u16 | sequence u64, little-endian
struct AmHeader {
  uint32_t magic = kAmMagic;
  uint16_t version = kAmVersion;
  uint16_t kind = 0;
  uint64_t sequence = 0;
};

static_assert(sizeof(AmHeader) == 16);
static_assert(std::endian::native == std::endian::little);

struct UcxPeer {
  enum class State : uint8_t {
    kConnecting,  // We wait for the answer to our hello.
    kAccepting,   // We wait for the other side's hello.
    kUp,
    kClosing,  // The endpoint is being forced shut; the owner may not use it any more.
  };

  struct Early {
    AmKind kind = AmKind::kData;
    ReceiveBuffer buffer;
  };

  UcxTransport* transport = nullptr;
  PeerHandle handle;
  ucp_ep_h endpoint = nullptr;
  State state = State::kConnecting;
  bool announce_down = false;  // The owner knows this handle.
  uint64_t next_send = 0;
  uint64_t next_receive = 0;
  std::map<uint64_t, Early> early;  // Arrived before their turn.
  size_t receiving_bytes = 0;       // Capacity of buffers not yet consumed.
  size_t queued_bytes = 0;
  size_t in_flight_count = 0;  // Sends and receives that UCX has not completed.
  void* close_request = nullptr;
  Instant deadline;  // To be up, or closed.
  absl::Status why;
};

// A send or a rendezvous receive that UCX owns until its callback. Never freed before that: if a
// connection is given up first, the operation only loses its peer.
struct UcxOperation {
  UcxTransport* transport = nullptr;
  bool in_use = false;
  bool abandoned = false;
  bool is_send = false;
  bool has_ticket = false;  // False for our own hello messages.
  PeerHandle peer;
  SendTicket ticket;
  size_t bytes = 0;
  AmHeader header;
  std::array<ucp_dt_iov_t, kUcxPartsMax> parts = {};
  ReceiveBuffer buffer;
};

// What a UCX callback saw. Callbacks only append these; Progress() acts on them afterwards, so a
// handler never runs inside UCX.
struct UcxEvent {
  enum class Kind : uint8_t { kConnectRequest, kMessage, kOperationDone, kEndpointError, kReject };

  Kind kind = Kind::kMessage;
  PeerHandle peer{};
  ucp_conn_request_h request = nullptr;
  UcxOperation* operation = nullptr;
  ucs_status_t status = UCS_OK;
  bool oversize = false;  // kReject: too large, else a breach of the framing.
  AmHeader header{};
  ReceiveBuffer buffer{};
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_PEER_H_
