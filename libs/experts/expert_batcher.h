#ifndef SWITCHYARD_LIBS_EXPERTS_EXPERT_BATCHER_H_
#define SWITCHYARD_LIBS_EXPERTS_EXPERT_BATCHER_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "libs/base/clock.h"
#include "libs/experts/expert_bank.h"
#include "libs/experts/load_counter.h"
#include "libs/kernels/kernels.h"
#include "libs/transport/transport.h"
#include "libs/wire/frame.h"

namespace switchyard {

// A dispatch frame that waits: its rows widened to f32, its table copied.
struct QueuedFrame {
  PeerHandle peer;
  FrameHeader header;
  Instant queued_at;
  Instant deadline;
  std::vector<float> rows;          // [header.row_count][hidden_size]
  std::vector<RouteEntry> entries;  // As in the frame.

  size_t byte_size() const {
    return rows.size() * sizeof(float) + entries.size() * sizeof(RouteEntry);
  }
};

struct BatcherLimits {
  uint32_t queued_rows_max = 65536;  // (row, expert) pairs.
  size_t queued_bytes_max = 256 * 1024 * 1024;
  uint32_t batch_rows_max = 4096;  // Pairs per grouped FFN; one frame may exceed it.
  // How long the oldest frame of a layer waits for those that follow (FrameHeader::more_follows),
  // so that an expert's weights are read once for all of its rows.
  Duration hold_max = std::chrono::milliseconds(5);
};

// ExpertBatcher queues frames by layer and computes those that wait together as one grouped FFN.
// The layer whose frame is oldest goes first, unless it waits for frames that follow.
//
// One owner. All arguments of the constructor outlive it.
class ExpertBatcher {
 public:
  enum class AddResult : uint8_t { kQueued, kBusy, kNotFinite };

  // What becomes of one frame: with kOk `rows[i]` is the answer to entry i, valid during the call.
  using AnswerFunction = std::function<void(const QueuedFrame& frame, FrameStatus status,
                                            std::span<const float* const> rows)>;

  ExpertBatcher(const BatcherLimits& limits, const ExpertBank& bank, const Kernels& kernels,
                ComputePool& pool, LoadCounter& load);

  // A parsed dispatch frame whose layer, experts, dtype and hidden size have been checked.
  AddResult Add(PeerHandle peer, const ParsedFrame& frame, Instant now);

  // Takes at most `frames_max` frames of one layer and answers each exactly once, in the order of
  // arrival. Frames for which `wanted` says false go without an answer. A frame with an expert that
  // is absent is answered kUnknownExpert. False when nothing was due.
  bool RunBatch(Instant now, size_t frames_max,
                const std::function<bool(const QueuedFrame&)>& wanted,
                const AnswerFunction& answer);

  // When RunBatch() has something to do though nothing is added; Instant::max() for never.
  Instant next_due() const;

  bool empty() const { return order_.empty(); }

  uint32_t queued_rows() const { return queued_rows_; }

  // Pairs in the last grouped FFN; 0 when all frames of the batch lacked an expert.
  uint32_t last_batch_rows() const { return batch_rows_; }

 private:
  using FramePointer = std::unique_ptr<QueuedFrame>;

  // Frames of one decoder layer, oldest first.
  struct LayerQueue {
    std::deque<FramePointer> frames;
    uint32_t pairs = 0;
    Instant hold_until;  // More frames are to come by then.
  };

  FramePointer TakeFree();
  Instant DueAt(const LayerQueue& queue) const;
  void TakeFrames(size_t frames_max, const std::function<bool(const QueuedFrame&)>& wanted);
  void FindExperts(LayerId layer);
  bool HasAllExperts(const QueuedFrame& frame) const;
  void SortByExpert();
  void Gather();
  void Compute(LayerId layer);
  void Answer(const AnswerFunction& answer);
  void Recycle(FramePointer frame);

  const BatcherLimits limits_;
  const ExpertBank& bank_;
  const Kernels& kernels_;
  ComputePool& pool_;
  LoadCounter& load_;

  std::vector<LayerQueue> layers_;  // By decoder layer.
  std::deque<uint16_t> order_;      // Layers with frames, oldest first.
  uint32_t queued_rows_ = 0;
  size_t queued_bytes_ = 0;
  std::vector<FramePointer> free_;

  // The batch that runs.
  std::vector<FramePointer> batch_;
  std::vector<uint8_t> complete_;                              // By frame of the batch.
  std::vector<std::shared_ptr<const ExpertWeights>> experts_;  // By expert, if activated.
  std::vector<uint8_t> looked_up_;                             // By expert.
  std::vector<uint32_t> expert_first_;                         // Where an expert's rows begin.
  std::vector<uint32_t> position_;                             // By frame and entry.
  std::vector<uint32_t> sources_;                              // By position: row of the batch.
  std::vector<FfnGroup> groups_;
  ActivationBuffer rows_;      // Rows of all frames, prepared once each.
  ActivationBuffer gathered_;  // The same by position.
  ActivationView x_;           // Of gathered_.
  std::vector<float> y_;
  FfnScratch scratch_;
  std::vector<const float*> answer_rows_;
  uint32_t batch_rows_ = 0;
  uint32_t hidden_size_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_EXPERTS_EXPERT_BATCHER_H_
