#ifndef SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_IMPL_H_
#define SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_IMPL_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ucp/api/ucp.h>

#include "absl/status/statusor.h"

#include "libs/transport/internal/receive_pool.h"
#include "libs/transport/internal/ucx_peer.h"
#include "libs/transport/internal/ucx_settings.h"
#include "libs/transport/transport.h"
#include "libs/transport/ucx_transport.h"

namespace switchyard::internal {

// The transport behind CreateUcxTransport(). UCX callbacks append to events_; Dispatch() turns them
// into handler calls outside of UCX. The UCX worker is made by the first Listen or Connect.
//
// One owner, but for Wake().
class UcxTransport final : public Transport {
 public:
  UcxTransport(const UcxOptions& options, const TransportLimits& limits, int wake_fd);
  ~UcxTransport() override;

  void SetHandler(TransportHandler* handler) override { handler_ = handler; }

  absl::StatusOr<std::string> Listen(const std::string& address) override;
  absl::StatusOr<PeerHandle> Connect(const std::string& address) override;
  void Close(PeerHandle peer) override;
  SendResult Send(PeerHandle peer, std::span<const std::span<const std::byte>> parts,
                  SendTicket ticket) override;
  bool Progress() override;
  bool Wait(Duration timeout) override;
  void Wake() override;

  size_t queued_bytes() const override { return queued_bytes_; }

  size_t peer_count() const override { return peers_.size(); }

  std::string description() const override;

 private:
  using Peers = std::map<PeerHandle, std::unique_ptr<UcxPeer>>;

  static void OnConnectRequest(ucp_conn_request_h request, void* arg);
  static void OnEndpointError(void* arg, ucp_ep_h endpoint, ucs_status_t status);
  static void OnSendComplete(void* request, ucs_status_t status, void* user_data);
  static void OnReceiveComplete(void* request, ucs_status_t status, size_t length, void* user_data);
  static ucs_status_t OnActiveMessage(void* arg, const void* header, size_t header_bytes,
                                      void* data, size_t bytes, const ucp_am_recv_param_t* param);
  ucs_status_t StartReceive(UcxPeer& peer, const AmHeader& header, void* data, size_t bytes);

  absl::Status Start(bool loopback);
  absl::Status StartWorker();
  UcxPeer& AddPeer(UcxPeer::State state);
  ucs_status_t CreateEndpoint(UcxPeer& peer, ucp_ep_params_t& params);
  void SendOperation(UcxPeer& peer, UcxOperation& operation, size_t part_count);
  void SendHello(UcxPeer& peer, AmKind kind);
  UcxOperation& AcquireOperation(UcxPeer& peer);
  void ReleaseOperation(UcxOperation& operation);

  bool Dispatch();
  void Accept(ucp_conn_request_h request);
  void OnArrived(PeerHandle handle, const AmHeader& header, ReceiveBuffer buffer);
  void Consume(UcxPeer& peer, AmKind kind, ReceiveBuffer buffer);
  void FinishOperation(UcxEvent& event);
  void Reject(PeerHandle handle, bool oversize);
  void Fail(UcxPeer& peer, const absl::Status& why);
  bool CheckTimers();
  bool TryFinishClose(Peers::iterator entry, Instant now);
  void Abandon(UcxPeer& peer);
  UcxPeer* Find(PeerHandle handle);
  bool Sleep(Duration timeout);
  Duration UntilTimer(Instant now) const;

  const UcxOptions options_;
  const TransportLimits limits_;
  const SteadyClock clock_;
  const int wake_fd_;
  TransportHandler* handler_ = nullptr;
  bool pinned_to_loopback_ = false;
  bool progressing_ = false;
  bool stopping_ = false;  // The destructor refuses what still wants to connect.
  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int worker_fd_ = -1;
  ucp_listener_h listener_ = nullptr;
  std::string lane_;

  Peers peers_;
  std::map<ucp_ep_h, UcxPeer*> peers_by_endpoint_;
  std::vector<std::unique_ptr<UcxPeer>> abandoned_peers_;
  std::vector<std::unique_ptr<UcxOperation>> operations_;
  std::vector<UcxOperation*> free_operations_;
  ReceivePool pool_;
  std::vector<UcxEvent> events_;
  std::vector<UcxEvent> dispatching_;  // Kept for its capacity.
  size_t timed_peer_count_ = 0;        // Connecting, accepting or closing.
  size_t queued_bytes_ = 0;
  uint64_t next_handle_ = 1;
};

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_TRANSPORT_INTERNAL_UCX_IMPL_H_
