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
    const bool threaded = options_.threads > 0 && progress_.bytes_total >= kThreadedBytesMin;
    const size_t worker_count = threaded ? options_.threads : 0;
    for (size_t i = 0; i < (threaded ? idle_.capacity() : 1); ++i) {
      Return(std::make_unique<Piece>());
    }
    std::vector<std::thread> workers;
    for (size_t i = 0; i < worker_count; ++i) {
      workers.emplace_back([this] {
        SetThreadName("load");
        Work();
      });
    }
    for (size_t i = 0; i < plan_.tensors_.size() && !failed_.load(); ++i) {
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
    for (uint32_t first = 0; first < source.slice.rows && !failed_.load(); first += step) {
      std::unique_ptr<Piece> piece = Take();
      piece->tensor = index;
      piece->first_row = first;
      const uint32_t count = std::min(step, source.slice.rows - first);
      if (const absl::Status read = piece->rows.Read(source, first, count); !read.ok()) {
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
    if (!failed_.load()) {
      if (const absl::Status checked = piece->rows.Check(); checked.ok()) {
        Place(*piece);
      } else {
        Fail(checked);
      }
    }
    Return(std::move(piece));
  }

  void Place(const Piece& piece) const {
    const Target& target = plan_.targets_[piece.tensor];
    const StoredMatrix& stored = piece.rows.stored();
    if (!target.heads.empty()) {
      FillMlaHeads(plan_.spec_, stored, target.heads);
    } else if (!target.vector.empty()) {
      internal::WidenToF32(stored.values, PlainDtype(stored.format), target.vector.size(),
                           target.vector.data());
    } else if (target.copy != nullptr) {
      const size_t offset = StoredValueBytes(stored.format, piece.first_row, stored.columns);
      std::copy_n(stored.values, StoredValueBytes(stored.format, stored.rows, stored.columns),
                  target.copy + offset);
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
