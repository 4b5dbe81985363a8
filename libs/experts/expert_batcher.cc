#include "libs/experts/expert_batcher.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "libs/base/check.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

constexpr size_t kFreeFramesMax = 256;  // Kept for reuse; more are given back to the system.

}  // namespace

ExpertBatcher::ExpertBatcher(const BatcherLimits& limits, const ExpertBank& bank,
                             const Kernels& kernels, ComputePool& pool, LoadCounter& load)
    : limits_(limits),
      bank_(bank),
      kernels_(kernels),
      pool_(pool),
      load_(load),
      layers_(bank.shape().layer_count),
      experts_(bank.shape().expert_count),
      looked_up_(bank.shape().expert_count),
      expert_first_(size_t{bank.shape().expert_count} + 1) {}

ExpertBatcher::FramePointer ExpertBatcher::TakeFree() {
  if (free_.empty()) {
    return std::make_unique<QueuedFrame>();
  }
  FramePointer frame = std::move(free_.back());
  free_.pop_back();
  return frame;
}

void ExpertBatcher::Recycle(FramePointer frame) {
  if (free_.size() < kFreeFramesMax) {
    free_.push_back(std::move(frame));
  }
}

ExpertBatcher::AddResult ExpertBatcher::Add(PeerHandle peer, const ParsedFrame& frame,
                                            Instant now) {
  const FrameHeader& header = frame.header;
  const size_t bytes = size_t{header.row_count} * header.hidden_size * sizeof(float) +
                       header.entry_count * sizeof(RouteEntry);
  if (uint64_t{queued_rows_} + header.entry_count > limits_.queued_rows_max ||
      queued_bytes_ + bytes > limits_.queued_bytes_max) {
    return AddResult::kBusy;
  }
  FramePointer queued = TakeFree();
  queued->peer = peer;
  queued->header = header;
  queued->queued_at = now;
  queued->deadline = now + std::chrono::microseconds(header.remaining_us);
  queued->rows.resize(size_t{header.row_count} * header.hidden_size);
  bool finite = true;
  for (uint32_t row = 0; row < header.row_count; ++row) {
    const std::span<float> place =
        std::span(queued->rows).subspan(size_t{row} * header.hidden_size, header.hidden_size);
    finite = DecodeRow(frame.row(row), header.dtype, place) && finite;
  }
  if (!finite) {
    Recycle(std::move(queued));
    return AddResult::kNotFinite;
  }
  queued->entries.resize(header.entry_count);
  for (uint32_t i = 0; i < header.entry_count; ++i) {
    queued->entries[i] = frame.entries[i];
  }
  SY_CHECK(header.layer < layers_.size());
  LayerQueue& layer = layers_[header.layer];
  if (layer.frames.empty()) {
    order_.push_back(header.layer);
  }
  layer.pairs += header.entry_count;
  const Instant oldest = layer.frames.empty() ? now : layer.frames.front()->queued_at;
  const bool may_wait = header.more_follows != 0 && queued->deadline - now > 2 * limits_.hold_max;
  layer.hold_until = may_wait ? oldest + limits_.hold_max : oldest;
  queued_rows_ += header.entry_count;
  queued_bytes_ += queued->byte_size();
  layer.frames.push_back(std::move(queued));
  return AddResult::kQueued;
}

// A full batch waits for nobody.
Instant ExpertBatcher::DueAt(const LayerQueue& queue) const {
  return queue.pairs >= limits_.batch_rows_max ? queue.frames.front()->queued_at : queue.hold_until;
}

Instant ExpertBatcher::next_due() const {
  Instant due = Instant::max();
  for (const uint16_t layer : order_) {
    due = std::min(due, DueAt(layers_[layer]));
  }
  return due;
}

bool ExpertBatcher::RunBatch(Instant now, size_t frames_max,
                             const std::function<bool(const QueuedFrame&)>& wanted,
                             const AnswerFunction& answer) {
  const auto due =
      std::ranges::find_if(order_, [&](uint16_t number) { return DueAt(layers_[number]) <= now; });
  if (due == order_.end() || frames_max == 0) {
    return false;
  }
  std::rotate(order_.begin(), due, due + 1);
  const LayerId layer(order_.front());
  TakeFrames(frames_max, wanted);
  if (!batch_.empty()) {
    FindExperts(layer);
    SortByExpert();
    Gather();
    Compute(layer);
    Answer(answer);
  }
  return true;
}

void ExpertBatcher::TakeFrames(size_t frames_max,
                               const std::function<bool(const QueuedFrame&)>& wanted) {
  LayerQueue& queue = layers_[order_.front()];
  std::deque<FramePointer>& layer = queue.frames;
  uint32_t rows = 0;
  batch_.clear();
  batch_rows_ = 0;
  while (!layer.empty() && batch_.size() < frames_max) {
    const uint32_t entries = layer.front()->header.entry_count;
    if (!batch_.empty() && rows + entries > limits_.batch_rows_max) {
      break;
    }
    FramePointer frame = std::move(layer.front());
    layer.pop_front();
    queue.pairs -= entries;
    queued_rows_ -= entries;
    queued_bytes_ -= frame->byte_size();
    if (wanted(*frame)) {
      rows += entries;
      batch_.push_back(std::move(frame));
    } else {
      Recycle(std::move(frame));
    }
  }
  // What is left of this layer waits its turn behind the others.
  const uint16_t number = order_.front();
  order_.pop_front();
  if (!layer.empty()) {
    order_.push_back(number);
  }
}

void ExpertBatcher::FindExperts(LayerId layer) {
  std::ranges::fill(looked_up_, uint8_t{0});
  complete_.clear();
  for (const FramePointer& frame : batch_) {
    for (const RouteEntry& entry : frame->entries) {
      if (looked_up_[entry.expert] == 0) {
        looked_up_[entry.expert] = 1;
        experts_[entry.expert] = bank_.Find(layer, ExpertId(entry.expert));
      }
    }
    complete_.push_back(HasAllExperts(*frame) ? 1 : 0);
  }
}

bool ExpertBatcher::HasAllExperts(const QueuedFrame& frame) const {
  return std::ranges::all_of(
      frame.entries, [&](const RouteEntry& entry) { return experts_[entry.expert] != nullptr; });
}

// A counting sort of all entries by expert; within an expert by frame and row.
void ExpertBatcher::SortByExpert() {
  std::ranges::fill(expert_first_, 0U);
  for (size_t f = 0; f < batch_.size(); ++f) {
    for (const RouteEntry& entry : batch_[f]->entries) {
      expert_first_[entry.expert + 1U] += complete_[f];
    }
  }
  for (size_t i = 1; i < expert_first_.size(); ++i) {
    expert_first_[i] += expert_first_[i - 1];
  }
  batch_rows_ = expert_first_.back();
  sources_.resize(batch_rows_);
  position_.clear();
  std::vector<uint32_t>& next = expert_first_;
  uint32_t first_row = 0;  // Of the frame, among the rows of the batch.
  for (size_t f = 0; f < batch_.size(); ++f) {
    hidden_size_ = batch_[f]->header.hidden_size;
    for (const RouteEntry& entry : batch_[f]->entries) {
      if (complete_[f] == 0) {
        break;
      }
      const uint32_t position = next[entry.expert]++;
      position_.push_back(position);
      sources_[position] = first_row + entry.row;
    }
    first_row += batch_[f]->header.row_count;
  }
  // Each beginning has moved to its end.
}

// Each row is rounded or quantised once, then copied to where its experts want it.
void ExpertBatcher::Gather() {
  if (batch_rows_ == 0) {
    return;
  }
  const size_t floats = size_t{batch_rows_} * hidden_size_;
  if (y_.size() < floats) {
    y_.resize(floats);
  }
  const auto first = std::ranges::find_if(experts_, [](const auto& e) { return e != nullptr; });
  const ActivationForm form = FormFor((*first)->gate.format);
  const size_t row_bytes = form == ActivationForm::kF32 ? hidden_size_ * sizeof(float)
                                                        : ActivationRowBytes(form, hidden_size_);
  uint32_t row_count = 0;
  for (const FramePointer& frame : batch_) {
    row_count += frame->header.row_count;
  }
  std::byte* const rows = rows_.Reserve(row_count * row_bytes);
  std::byte* target = rows;
  for (const FramePointer& frame : batch_) {
    for (uint32_t row = 0; row < frame->header.row_count; ++row, target += row_bytes) {
      const float* const source = frame->rows.data() + size_t{row} * hidden_size_;
      if (form == ActivationForm::kF32) {
        std::memcpy(target, source, row_bytes);
      } else {
        kernels_.prepare_row(form, source, hidden_size_, target);
      }
    }
  }
  std::byte* const gathered = gathered_.Reserve(batch_rows_ * row_bytes);
  for (uint32_t row = 0; row < batch_rows_; ++row) {
    std::memcpy(gathered + row * row_bytes, rows + sources_[row] * row_bytes, row_bytes);
  }
  x_ = {.data = gathered,
        .form = form,
        .row_bytes = row_bytes,
        .row_count = batch_rows_,
        .columns = hidden_size_};
}

void ExpertBatcher::Compute(LayerId layer) {
  groups_.clear();
  uint32_t begin = 0;
  for (size_t expert = 0; expert < experts_.size(); ++expert) {
    const uint32_t end = expert_first_[expert];
    if (end == begin) {
      continue;
    }
    const ExpertWeights& weights = *experts_[expert];
    SY_CHECK(weights.gate.columns == hidden_size_);
    SY_CHECK(groups_.empty() || groups_[0].gate.rows == weights.gate.rows);
    groups_.push_back({.gate = weights.gate,
                       .up = weights.up,
                       .down = weights.down,
                       .first_row = begin,
                       .row_count = end - begin});
    load_.Add(layer, ExpertId(static_cast<uint16_t>(expert)), end - begin);
    begin = end;
  }
  if (!groups_.empty()) {
    GroupedFfn(kernels_, pool_,
               {.groups = groups_,
                .x = x_,
                .hidden_size = hidden_size_,
                .intermediate_size = groups_[0].gate.rows,
                .y = y_.data(),
                .scratch = &scratch_});
  }
  for (size_t expert = 0; expert < experts_.size(); ++expert) {
    if (looked_up_[expert] != 0) {
      experts_[expert].reset();  // A dropped expert's memory is not held until the next batch.
    }
  }
}

void ExpertBatcher::Answer(const AnswerFunction& answer) {
  size_t next = 0;
  for (size_t f = 0; f < batch_.size(); ++f) {
    answer_rows_.clear();
    if (complete_[f] != 0) {
      for (size_t i = 0; i < batch_[f]->entries.size(); ++i) {
        answer_rows_.push_back(y_.data() + size_t{position_[next++]} * hidden_size_);
      }
    }
    answer(*batch_[f], complete_[f] != 0 ? FrameStatus::kOk : FrameStatus::kUnknownExpert,
           answer_rows_);
    Recycle(std::move(batch_[f]));
  }
  batch_.clear();
}

}  // namespace switchyard
