#include "libs/transport/ucx_transport.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <sys/eventfd.h>
#include <unistd.h>

#include "libs/base/check.h"
#include "libs/base/status.h"
#include "libs/transport/internal/ucx_impl.h"

namespace switchyard {
namespace internal {
namespace {

constexpr unsigned kAmId = 1;
constexpr Duration kWaitMax = std::chrono::hours(24);  // Keeps deadlines within the clock's range.
constexpr Duration kShutdownMax = std::chrono::seconds(1);
constexpr int kProgressRoundsMax = 64;  // So that a busy network cannot keep Progress() for ever.

}  // namespace

UcxTransport::UcxTransport(const UcxOptions& options, const TransportLimits& limits, int wake_fd)
    : options_(options), limits_(limits), wake_fd_(wake_fd) {
  SY_CHECK(limits.message_bytes_max <= limits.queued_bytes_max_per_peer);
}

UcxTransport::~UcxTransport() {
  handler_ = nullptr;
  stopping_ = true;
  if (worker_ != nullptr) {
    std::vector<PeerHandle> handles;
    for (const auto& [handle, peer] : peers_) {
      handles.push_back(handle);
    }
    for (const PeerHandle handle : handles) {
      Close(handle);
    }
    const Instant deadline = clock_.Now() + kShutdownMax;
    while (!peers_.empty() && clock_.Now() < deadline) {
      Progress();
    }
    if (listener_ != nullptr) {
      ucp_listener_destroy(listener_);
    }
    ucp_worker_destroy(worker_);
  }
  if (context_ != nullptr) {
    ucp_cleanup(context_);
  }
  close(wake_fd_);
}

absl::StatusOr<std::string> UcxTransport::Listen(const std::string& address) {
  if (listener_ != nullptr) {
    return FailedPrecondition("listen: already listening");
  }
  SY_ASSIGN_OR_RETURN(const SocketAddress parsed, ParseSocketAddress(address));
  SY_RETURN_IF_ERROR(Start(parsed.loopback));
  ucp_listener_params_t params = {};
  params.field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&parsed.storage);
  params.sockaddr.addrlen = parsed.bytes;
  params.conn_handler.cb = &UcxTransport::OnConnectRequest;
  params.conn_handler.arg = this;
  if (const ucs_status_t status = ucp_listener_create(worker_, &params, &listener_);
      status != UCS_OK) {
    listener_ = nullptr;
    return Annotate(FromUcs(status, "ucp_listener_create"), "listen on " + address);
  }
  ucp_listener_attr_t attributes = {};
  attributes.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR;
  if (const ucs_status_t status = ucp_listener_query(listener_, &attributes); status != UCS_OK) {
    return FromUcs(status, "ucp_listener_query");
  }
  return FormatSocketAddress(attributes.sockaddr);
}

absl::StatusOr<PeerHandle> UcxTransport::Connect(const std::string& address) {
  SY_ASSIGN_OR_RETURN(const SocketAddress parsed, ParseSocketAddress(address));
  if (peers_.size() >= limits_.peers_max) {
    return ResourceExhausted("connect: {} peers, limit {}", peers_.size(), limits_.peers_max);
  }
  SY_RETURN_IF_ERROR(Start(parsed.loopback));
  UcxPeer& peer = AddPeer(UcxPeer::State::kConnecting);
  peer.announce_down = true;
  ucp_ep_params_t params = {};
  params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
  params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
  params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&parsed.storage);
  params.sockaddr.addrlen = parsed.bytes;
  if (const ucs_status_t status = CreateEndpoint(peer, params); status != UCS_OK) {
    Fail(peer, FromUcs(status, "ucp_ep_create"));
    return peer.handle;
  }
  SendHello(peer, AmKind::kHello);
  return peer.handle;
}

void UcxTransport::Close(PeerHandle handle) {
  if (UcxPeer* peer = Find(handle); peer != nullptr) {
    Fail(*peer, absl::CancelledError("closed by this side"));
  }
}

SendResult UcxTransport::Send(PeerHandle handle, std::span<const std::span<const std::byte>> parts,
                              SendTicket ticket) {
  SY_CHECK(parts.size() <= kUcxPartsMax);
  size_t bytes = 0;
  for (const auto& part : parts) {
    bytes += part.size();
  }
  SY_CHECK(bytes <= limits_.message_bytes_max);
  UcxPeer* peer = Find(handle);
  if (peer == nullptr || peer->state != UcxPeer::State::kUp) {
    return SendResult::kNoPeer;
  }
  if (peer->queued_bytes + bytes > limits_.queued_bytes_max_per_peer) {
    ++stats_.backpressure;
    return SendResult::kBackpressure;
  }
  ++stats_.messages_sent;
  stats_.bytes_sent += bytes;
  peer->queued_bytes += bytes;
  queued_bytes_ += bytes;
  UcxOperation& operation = AcquireOperation(*peer);
  operation.is_send = true;
  operation.has_ticket = true;
  operation.ticket = ticket;
  operation.bytes = bytes;
  operation.header = {.kind = static_cast<uint16_t>(AmKind::kData), .sequence = peer->next_send++};
  size_t part_count = 0;
  for (const auto& part : parts) {
    if (!part.empty()) {
      operation.parts[part_count++] = {.buffer = const_cast<std::byte*>(part.data()),
                                       .length = part.size()};
    }
  }
  SendOperation(*peer, operation, part_count);
  return SendResult::kAccepted;
}

bool UcxTransport::Progress() {
  SY_CHECK(!progressing_);
  progressing_ = true;
  bool happened = false;
  for (int round = 0; worker_ != nullptr && round < kProgressRoundsMax; ++round) {
    const unsigned moved = ucp_worker_progress(worker_);
    happened |= Dispatch();
    if (moved == 0 && events_.empty()) {
      break;
    }
  }
  if (timed_peer_count_ > 0) {
    happened |= CheckTimers();
  }
  progressing_ = false;
  return happened;
}

bool UcxTransport::Wait(Duration timeout) {
  const Instant start = clock_.Now();
  const Instant deadline = start + std::min(timeout, kWaitMax);
  if (Progress()) {
    return true;
  }
  Instant now = clock_.Now();
  while (now < std::min(deadline, start + options_.spin_max)) {
    if (Progress()) {
      return true;
    }
    now = clock_.Now();
  }
  while (now < deadline) {
    const bool armed =
        events_.empty() && (worker_ == nullptr || ucp_worker_arm(worker_) != UCS_ERR_BUSY);
    const bool woken = Sleep(armed ? std::min(deadline - now, UntilTimer(now)) : Duration::zero());
    if (Progress()) {
      return true;
    }
    if (woken) {
      return false;
    }
    now = clock_.Now();
  }
  return false;
}

void UcxTransport::Wake() {
  const uint64_t one = 1;
  // Fails only if the counter is full, and then the sleeper is woken anyway.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

std::string UcxTransport::description() const {
  const char* mode = options_.mode == UcxOptions::Mode::kTcp   ? "ucx tcp"
                     : options_.mode == UcxOptions::Mode::kShm ? "ucx shm"
                                                               : "ucx auto";
  return lane_.empty() ? mode : fmt::format("{} ({})", mode, lane_);
}

// ---- UCX callbacks: they only append events. ----

void UcxTransport::OnConnectRequest(ucp_conn_request_h request, void* arg) {
  auto* self = static_cast<UcxTransport*>(arg);
  self->events_.push_back({.kind = UcxEvent::Kind::kConnectRequest, .request = request});
}

void UcxTransport::OnEndpointError(void* arg, ucp_ep_h /*endpoint*/, ucs_status_t status) {
  const auto* peer = static_cast<UcxPeer*>(arg);
  peer->transport->events_.push_back(
      {.kind = UcxEvent::Kind::kEndpointError, .peer = peer->handle, .status = status});
}

void UcxTransport::OnSendComplete(void* request, ucs_status_t status, void* user_data) {
  auto* operation = static_cast<UcxOperation*>(user_data);
  operation->transport->events_.push_back(
      {.kind = UcxEvent::Kind::kOperationDone, .operation = operation, .status = status});
  ucp_request_free(request);
}

void UcxTransport::OnReceiveComplete(void* request, ucs_status_t status, size_t length,
                                     void* user_data) {
  auto* operation = static_cast<UcxOperation*>(user_data);
  const bool whole = length == operation->bytes;
  operation->transport->events_.push_back(
      {.kind = UcxEvent::Kind::kOperationDone,
       .operation = operation,
       .status = status == UCS_OK && !whole ? UCS_ERR_MESSAGE_TRUNCATED : status});
  ucp_request_free(request);
}

// The three ways in which data arrives: inline and persistent data are copied (they are rarely
// aligned to 16), a rendezvous is fetched into a buffer of ours.
ucs_status_t UcxTransport::OnActiveMessage(void* arg, const void* header, size_t header_bytes,
                                           void* data, size_t bytes,
                                           const ucp_am_recv_param_t* param) {
  auto* self = static_cast<UcxTransport*>(arg);
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) == 0) {
    return UCS_OK;  // Nobody of ours sends so, and there is no peer to blame.
  }
  const auto found = self->peers_by_endpoint_.find(param->reply_ep);
  if (found == self->peers_by_endpoint_.end()) {
    return UCS_OK;  // The connection is being closed.
  }
  UcxPeer& peer = *found->second;
  AmHeader parsed;
  const bool framed = header_bytes == sizeof(parsed);
  if (framed) {
    std::memcpy(&parsed, header, sizeof(parsed));
  }
  const bool oversize = bytes > self->limits_.message_bytes_max;
  // The acceptor's first messages may come along with its acknowledgement, so only a peer that owes
  // us its hello is held to that here. Buffers may be twice as large as their messages.
  const size_t receiving_max =
      peer.state == UcxPeer::State::kAccepting
          ? kHandshakeBytesMax
          : 2 * (self->limits_.queued_bytes_max_per_peer + self->limits_.message_bytes_max);
  const bool flooded =
      !oversize && peer.receiving_bytes + ReceivePool::CapacityFor(bytes) > receiving_max;
  if (!framed || parsed.magic != kAmMagic || parsed.version != kAmVersion || oversize || flooded) {
    self->events_.push_back(
        {.kind = UcxEvent::Kind::kReject, .peer = peer.handle, .oversize = oversize});
    return UCS_OK;
  }
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0) {
    return self->StartReceive(peer, parsed, data, bytes);
  }
  ReceiveBuffer buffer = self->pool_.Take(bytes);
  if (bytes > 0) {
    std::memcpy(buffer.bytes.get(), data, bytes);
  }
  peer.receiving_bytes += buffer.capacity;
  self->events_.push_back({.kind = UcxEvent::Kind::kMessage,
                           .peer = peer.handle,
                           .header = parsed,
                           .buffer = std::move(buffer)});
  return UCS_OK;
}

ucs_status_t UcxTransport::StartReceive(UcxPeer& peer, const AmHeader& header, void* data,
                                        size_t bytes) {
  UcxOperation& operation = AcquireOperation(peer);
  operation.bytes = bytes;
  operation.header = header;
  operation.buffer = pool_.Take(bytes);
  peer.receiving_bytes += operation.buffer.capacity;
  ucp_request_param_t param = {};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.cb.recv_am = &UcxTransport::OnReceiveComplete;
  param.user_data = &operation;
  void* request = ucp_am_recv_data_nbx(worker_, data, operation.buffer.bytes.get(), bytes, &param);
  if (request == nullptr || UCS_PTR_IS_ERR(request)) {
    events_.push_back({.kind = UcxEvent::Kind::kOperationDone,
                       .operation = &operation,
                       .status = UCS_PTR_STATUS(request)});
  }
  return UCS_INPROGRESS;  // UCX owns the descriptor from here, also after an error.
}

// ---- Starting ----

absl::Status UcxTransport::Start(bool loopback) {
  if (worker_ != nullptr) {
    if (pinned_to_loopback_ && !loopback) {
      return FailedPrecondition("transport is pinned to loopback by its first address");
    }
    return absl::OkStatus();
  }
  if (context_ == nullptr) {
    SY_ASSIGN_OR_RETURN(context_, CreateUcpContext(options_, loopback));
    pinned_to_loopback_ = loopback && options_.devices.empty();
  }
  return StartWorker();
}

absl::Status UcxTransport::StartWorker() {
  ucp_worker_params_t params = {};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  params.thread_mode = UCS_THREAD_MODE_SINGLE;
  ucp_worker_h worker = nullptr;
  if (const ucs_status_t status = ucp_worker_create(context_, &params, &worker); status != UCS_OK) {
    return FromUcs(status, "ucp_worker_create");
  }
  ucp_am_handler_param_t am = {};
  am.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                  UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  am.id = kAmId;
  am.flags = UCP_AM_FLAG_WHOLE_MSG;
  am.cb = &UcxTransport::OnActiveMessage;
  am.arg = this;
  ucs_status_t status = ucp_worker_set_am_recv_handler(worker, &am);
  if (status == UCS_OK) {
    status = ucp_worker_get_efd(worker, &worker_fd_);
  }
  if (status != UCS_OK) {
    ucp_worker_destroy(worker);
    return FromUcs(status, "ucx worker set-up");
  }
  worker_ = worker;
  return absl::OkStatus();
}

UcxPeer& UcxTransport::AddPeer(UcxPeer::State state) {
  const PeerHandle handle(next_handle_++);
  auto peer = std::make_unique<UcxPeer>();
  peer->transport = this;
  peer->handle = handle;
  peer->state = state;
  peer->deadline = clock_.Now() + options_.connect_timeout;
  ++timed_peer_count_;
  return *(peers_[handle] = std::move(peer));
}

ucs_status_t UcxTransport::CreateEndpoint(UcxPeer& peer, ucp_ep_params_t& params) {
  params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = &UcxTransport::OnEndpointError;
  params.err_handler.arg = &peer;
  const ucs_status_t status = ucp_ep_create(worker_, &params, &peer.endpoint);
  if (status != UCS_OK) {
    peer.endpoint = nullptr;
    return status;
  }
  peers_by_endpoint_[peer.endpoint] = &peer;
  return UCS_OK;
}

// ---- Sending ----

void UcxTransport::SendOperation(UcxPeer& peer, UcxOperation& operation, size_t part_count) {
  ucp_request_param_t param = {};
  param.op_attr_mask =
      UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.flags = UCP_AM_SEND_FLAG_REPLY;  // Tells the receiver which connection it is.
  param.cb.send = &UcxTransport::OnSendComplete;
  param.user_data = &operation;
  const void* buffer = operation.parts[0].buffer;
  size_t count = part_count == 0 ? 0 : operation.parts[0].length;
  if (part_count > 1) {
    param.op_attr_mask |= UCP_OP_ATTR_FIELD_DATATYPE;
    param.datatype = UCP_DATATYPE_IOV;
    buffer = operation.parts.data();
    count = part_count;
  } else if (part_count == 0) {
    buffer = nullptr;
  }
  void* request = ucp_am_send_nbx(peer.endpoint, kAmId, &operation.header, sizeof(operation.header),
                                  buffer, count, &param);
  if (request == nullptr || UCS_PTR_IS_ERR(request)) {
    events_.push_back({.kind = UcxEvent::Kind::kOperationDone,
                       .operation = &operation,
                       .status = UCS_PTR_STATUS(request)});
  }
}

void UcxTransport::SendHello(UcxPeer& peer, AmKind kind) {
  UcxOperation& operation = AcquireOperation(peer);
  operation.is_send = true;
  operation.header = {.kind = static_cast<uint16_t>(kind), .sequence = peer.next_send++};
  SendOperation(peer, operation, 0);
}

UcxOperation& UcxTransport::AcquireOperation(UcxPeer& peer) {
  if (free_operations_.empty()) {
    operations_.push_back(std::make_unique<UcxOperation>());
    free_operations_.push_back(operations_.back().get());
  }
  UcxOperation& operation = *free_operations_.back();
  free_operations_.pop_back();
  operation.transport = this;
  operation.in_use = true;
  operation.abandoned = false;
  operation.is_send = false;
  operation.has_ticket = false;
  operation.bytes = 0;
  operation.peer = peer.handle;
  ++peer.in_flight_count;
  return operation;
}

void UcxTransport::ReleaseOperation(UcxOperation& operation) {
  pool_.Return(std::exchange(operation.buffer, {}));
  operation.in_use = false;
  free_operations_.push_back(&operation);
}

}  // namespace internal

absl::StatusOr<UcxOptions::Mode> ParseUcxMode(const std::string& name) {
  if (name.empty() || name == "auto") {
    return UcxOptions::Mode::kAuto;
  }
  if (name == "tcp") {
    return UcxOptions::Mode::kTcp;
  }
  if (name == "shm") {
    return UcxOptions::Mode::kShm;
  }
  return InvalidArgument("\"{}\" is none of auto, tcp, shm", name);
}

absl::StatusOr<std::unique_ptr<Transport>> CreateUcxTransport(const UcxOptions& options,
                                                              const TransportLimits& limits) {
  internal::ExportUcxDefaults();
  const int wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_fd < 0) {
    return ResourceExhausted("eventfd: {}", std::strerror(errno));
  }
  return std::make_unique<internal::UcxTransport>(options, limits, wake_fd);
}

}  // namespace switchyard
