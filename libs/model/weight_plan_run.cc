// WeightPlan::Run: the calling thread reads pieces of a few MiB, others repack them.
#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/time/time.h"

#include "libs/base/bounded_queue.h"
#include "libs/base/mutex.h"
#include "libs/base/status.h"
#include "libs/base/thread_name.h"
#include "libs/model/convert_rows.h"
#include "libs/model/internal/guard_memory.h"
#include "libs/model/internal/widen.h"
#include "libs/model/weight_plan.h"

namespace switchyard {
namespace {

constexpr uint64_t kPieceBytes = 4U << 20;

// Below that starting threads costs more than it saves.
constexpr uint64_t kThreadedBytesMin = 512U << 10;

// Rows of one piece: a multiple of kFp8Block, and all rows of a small tensor.
uint32_t RowsPerPiece(const StoredSlice& source) {
  const uint64_t row_bytes =
      std::max<uint64_t>(StoredValueBytes(source.format, 1, source.slice.columns), 1);
  const uint64_t rows = std::max<uint64_t>(kPieceBytes / row_bytes / kFp8Block, 1) * kFp8Block;
  return static_cast<uint32_t>(std::min<uint64_t>(rows, source.slice.rows));
}

Dtype PlainDtype(WeightFormat format) {
  if (format == WeightFormat::kBf16) {
    return Dtype::kBf16;
  }
  return format == WeightFormat::kF16 ? Dtype::kF16 : Dtype::kF32;
}

}  // namespace

// One run. The reader is the calling thread; Work() runs on the others, or on the reader itself.
class WeightPlan::Runner {
 public:
  Runner(const WeightPlan& plan, const LoadOptions& options)
      : plan_(plan),
        options_(options),
        idle_(2 * size_t{options.threads} + 1),
        read_(2 * size_t{options.threads} + 1) {
    for (const PlannedTensor& tensor : plan.tensors_) {
      progress_.bytes_total += tensor.source.byte_size();
    }
  }

  absl::Status Run() {
    const uint32_t wanted = progress_.bytes_total >= kThreadedBytesMin ? options_.threads : 0;
    for (size_t i = 0; i < (wanted > 0 ? idle_.capacity() : 1); ++i) {
      Return(std::make_unique<Piece>());
    }
    std::vector<std::thread> workers;
    const auto work = [this] {
      SetThreadName("load");
      Work();
    };
    while (workers.size() < wanted && internal::TryStart(workers, work)) {
    }
    const bool threaded = !workers.empty();
    for (size_t i = 0; i < plan_.tensors_.size() && !Ended(); ++i) {
      ReadTensor(i, threaded);
    }
    read_.Close();
    for (std::thread& worker : workers) {
      worker.join();
    }
    const MutexLock lock(&mutex_);
    return status_;
  }

 private:
  struct Piece {
    size_t tensor = 0;
    uint32_t first_row = 0;
    StoredRows rows;
  };

  void ReadTensor(size_t index, bool threaded) {
    const StoredSlice& source = plan_.tensors_[index].source;
    const bool whole = !plan_.targets_[index].heads.empty();
    const uint32_t step = whole ? source.slice.rows : RowsPerPiece(source);
    for (uint32_t first = 0; first < source.slice.rows && !Ended(); first += step) {
      std::unique_ptr<Piece> piece = Take();
      piece->tensor = index;
      piece->first_row = first;
      const uint32_t count = std::min(step, source.slice.rows - first);
      const absl::Status read = internal::GuardMemory(
          source.slice.name, [&] { return piece->rows.Read(source, first, count); });
      if (!read.ok()) {
        Fail(read);
        return;
      }
      progress_.bytes_done += source.byte_size() * count / source.slice.rows;
      if (!threaded) {
        Finish(std::move(piece));
      } else if (!read_.TryPush(std::move(piece))) {
        Fail(Internal("load: more pieces than buffers"));
      }
      if (options_.observer != nullptr) {
        options_.observer(progress_);
      }
    }
  }

  void Work() {
    while (true) {
      std::optional<std::unique_ptr<Piece>> piece = read_.PopWithTimeout(absl::Hours(1));
      if (piece.has_value()) {
        Finish(*std::move(piece));
      } else if (read_.closed()) {
        return;
      }
    }
  }

  void Finish(std::unique_ptr<Piece> piece) {
    if (!Ended()) {
      const PlannedTensor& tensor = plan_.tensors_[piece->tensor];
      const absl::Status placed = internal::GuardMemory(tensor.source.slice.name, [&] {
        SY_RETURN_IF_ERROR(piece->rows.Check(tensor.rounded));
        Place(*piece);
        return absl::OkStatus();
      });
      if (!placed.ok()) {
        Fail(placed);
      }
    }
    Return(std::move(piece));
  }

  void Place(const Piece& piece) const {
    const WeightFormat rounded = plan_.tensors_[piece.tensor].rounded;
    const StoredMatrix& stored = piece.rows.stored();
    if (rounded == stored.format) {
      Place(piece, stored);
      return;
    }
    const ConvertedRows converted = ConvertRows(stored, rounded);
    Place(piece, converted.View(rounded, stored.rows, stored.columns));
  }

  void Place(const Piece& piece, const StoredMatrix& stored) const {
    const Target& target = plan_.targets_[piece.tensor];
    if (!target.heads.empty()) {
      FillMlaHeads(plan_.spec_, stored, target.heads);
    } else if (!target.vector.empty()) {
      internal::WidenToF32(stored.values, PlainDtype(stored.format), target.vector.size(),
                           target.vector.data());
    } else if (target.copy != nullptr) {
      const auto size = [&stored](const auto& bytes_of, uint32_t rows) {
        return bytes_of(stored.format, rows, stored.columns);
      };
      std::copy_n(stored.values, size(StoredValueBytes, stored.rows),
                  target.copy + size(StoredValueBytes, piece.first_row));
      if (target.copy_scales != nullptr) {
        std::copy_n(static_cast<const std::byte*>(stored.scales),
                    size(StoredScaleBytes, stored.rows),
                    target.copy_scales + size(StoredScaleBytes, piece.first_row));
      }
    } else {
      WeightArena::Fill(target.packed, piece.first_row, stored);
    }
  }

  std::unique_ptr<Piece> Take() {
    while (true) {
      if (auto piece = idle_.PopWithTimeout(absl::Hours(1)); piece.has_value()) {
        return *std::move(piece);
      }
    }
  }

  void Return(std::unique_ptr<Piece> piece) {
    if (!idle_.TryPush(std::move(piece))) {
      Fail(Internal("load: more buffers than room for them"));
    }
  }

  // Nothing more is to be read or repacked. Any thread.
  bool Ended() {
    if (options_.cancelled != nullptr && options_.cancelled->load() && !failed_.load()) {
      Fail(absl::CancelledError("load: cancelled"));
    }
    return failed_.load();
  }

  void Fail(const absl::Status& status) {
    failed_.store(true);
    const MutexLock lock(&mutex_);
    if (status_.ok()) {
      status_ = status;
    }
  }

  const WeightPlan& plan_;
  const LoadOptions& options_;
  LoadProgress progress_;                      // The reader's.
  BoundedQueue<std::unique_ptr<Piece>> idle_;  // Buffers: they bound what is read ahead.
  BoundedQueue<std::unique_ptr<Piece>> read_;
  std::atomic<bool> failed_ = false;
  Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

absl::Status WeightPlan::Run(const LoadOptions& options) { return Runner(*this, options).Run(); }

}  // namespace switchyard
