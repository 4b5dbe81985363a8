#ifndef SWITCHYARD_LIBS_BASE_SNAPSHOT_H_
#define SWITCHYARD_LIBS_BASE_SNAPSHOT_H_

#include <memory>
#include <utility>

#include "libs/base/mutex.h"

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
    const MutexLock lock(&mutex_);
    return value_;
  }

  void Set(std::shared_ptr<const T> value) {
    const MutexLock lock(&mutex_);
    value_.swap(value);
  }

 private:
  mutable Mutex mutex_;
  std::shared_ptr<const T> value_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_SNAPSHOT_H_
