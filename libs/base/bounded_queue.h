#ifndef SWITCHYARD_LIBS_BASE_BOUNDED_QUEUE_H_
#define SWITCHYARD_LIBS_BASE_BOUNDED_QUEUE_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace switchyard {

// BoundedQueue hands values from any thread to one consumer. A full queue is an answer (TryPush
// returns false), never growth.
//
// Any thread.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when full or closed; `value` is then untouched.
  [[nodiscard]] bool TryPush(T&& value) {
    absl::MutexLock lock(&mutex_);
    if (closed_ || values_.size() >= capacity_) {
      return false;
    }
    values_.push_back(std::move(value));
    return true;
  }

  std::optional<T> TryPop() {
    absl::MutexLock lock(&mutex_);
    return PopLocked();
  }

  // Waits until there is a value, the queue is closed, or `timeout` passes.
  std::optional<T> PopWithTimeout(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(this, &BoundedQueue::HasValueOrClosed), timeout);
    return PopLocked();
  }

  // Refuses further pushes; values already queued can still be popped.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

  bool closed() const {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }

  size_t size() const {
    absl::MutexLock lock(&mutex_);
    return values_.size();
  }

  size_t capacity() const { return capacity_; }

 private:
  bool HasValueOrClosed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !values_.empty();
  }

  std::optional<T> PopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (values_.empty()) {
      return std::nullopt;
    }
    std::optional<T> value(std::move(values_.front()));
    values_.pop_front();
    return value;
  }

  const size_t capacity_;
  mutable absl::Mutex mutex_;
  std::deque<T> values_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_BOUNDED_QUEUE_H_
