#ifndef SWITCHYARD_LIBS_EXPERTS_EXPERT_SERVER_H_
#define SWITCHYARD_LIBS_EXPERTS_EXPERT_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/experts/expert_bank.h"
#include "libs/experts/experts_metrics.h"
#include "libs/experts/load_counter.h"
#include "libs/kernels/kernels.h"
#include "libs/transport/transport.h"

namespace switchyard {

struct ExpertServerOptions {
  ShardId shard;
  Incarnation incarnation;
  std::string model_digest;
  std::string numerics_id;
  uint32_t hidden_size = 0;
  Dtype row_dtype = Dtype::kF32;
  uint32_t routers_max = 256;
  uint32_t queued_rows_max = 65536;             // Over all routers; more is answered with "busy".
  size_t queued_bytes_max = 256 * 1024 * 1024;  // Likewise.
  uint32_t batch_rows_max = 4096;               // Per grouped GEMM; one frame may exceed it.
  uint32_t reply_buffers_max = 1024;  // Answers encoded and not yet handed to the network.
  Duration hello_timeout = std::chrono::seconds(5);  // Until a router is closed that says nothing.
  Duration reply_stall_max = std::chrono::seconds(2);  // Until one is closed that reads nothing.
};

// ExpertServer answers dispatch frames with expert rows. Frames that wait together, of whatever
// router, are computed as one grouped GEMM per layer.
//
// Owner: the transport thread of a shard, which also owns `transport` and `bank`'s serving side.
class ExpertServer final : public TransportHandler {
 public:
  ExpertServer(ExpertServerOptions options, Transport& transport, ExpertBank& bank,
               const Kernels& kernels, ComputePool& pool, const Clock& clock,
               ExpertsMetrics& metrics);
  ~ExpertServer() override;

  // Computes and answers what is queued, but for layers that wait for frames which follow; true if
  // there was anything. Called after Progress(), and again when WaitMax() is over.
  bool RunQueued();

  // How long the owner may wait for messages before it calls RunQueued() again; at most `most`.
  Duration WaitMax(Duration most) const;

  // Newest placement epoch this shard was told of; sent in every reply.
  void SetNewestEpoch(EpochId epoch);

  // Rows and activations per (layer, expert) since the start. The counter is for any thread.
  const LoadCounter& load() const;

  // What is queued and in use; all zero when idle but for connected routers (leak checks).
  struct Usage {
    uint32_t queued_rows = 0;
    size_t buffers = 0;
    size_t routers = 0;
  };

  Usage usage() const;

  void OnPeerUp(PeerHandle peer, bool accepted) override;
  void OnPeerDown(PeerHandle peer, const absl::Status& why) override;
  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override;
  void OnSendDone(PeerHandle peer, SendTicket ticket, const absl::Status& status) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_EXPERTS_EXPERT_SERVER_H_
