#ifndef SWITCHYARD_LIBS_BASE_SNAPSHOT_H_
#define SWITCHYARD_LIBS_BASE_SNAPSHOT_H_

#include <memory>
#include <mutex>
#include <utility>

namespace switchyard {

// Snapshot publishes an immutable value: readers pin a version and keep it as long as they like,
// the writer swaps in the next. Any thread.
template <typename T>
class Snapshot {
 public:
  Snapshot() = default;

  explicit Snapshot(std::shared_ptr<const T> value) : value_(std::move(value)) {}

  // May be null before the first Set.
  std::shared_ptr<const T> Get() const {
    const std::lock_guard lock(mutex_);
    return value_;
  }

  void Set(std::shared_ptr<const T> value) {
    const std::lock_guard lock(mutex_);
    value_.swap(value);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;  // Guarded by mutex_.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_SNAPSHOT_H_
