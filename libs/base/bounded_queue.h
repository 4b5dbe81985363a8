#ifndef SWITCHYARD_LIBS_BASE_BOUNDED_QUEUE_H_
#define SWITCHYARD_LIBS_BASE_BOUNDED_QUEUE_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/time/time.h"

namespace switchyard {

// BoundedQueue hands values from any thread to one consumer. A full queue is an answer (TryPush
// returns false), never growth.
//
// Any thread. Uses std::mutex because the packaged absl::Mutex is opaque to ThreadSanitizer.
template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when full or closed; `value` is then untouched.
  [[nodiscard]] bool TryPush(T&& value) {
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || values_.size() >= capacity_) {
        return false;
      }
      values_.push_back(std::move(value));
    }
    changed_.notify_one();
    return true;
  }

  std::optional<T> TryPop() {
    const std::lock_guard lock(mutex_);
    return PopLocked();
  }

  // Waits until there is a value, the queue is closed, or `timeout` passes.
  std::optional<T> PopWithTimeout(absl::Duration timeout) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                      [this] { return closed_ || !values_.empty(); });
    return PopLocked();
  }

  // Refuses further pushes; values already queued can still be popped.
  void Close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
  }

  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

  size_t size() const {
    const std::lock_guard lock(mutex_);
    return values_.size();
  }

  size_t capacity() const { return capacity_; }

 private:
  // Called with the lock held.
  std::optional<T> PopLocked() {
    if (values_.empty()) {
      return std::nullopt;
    }
    std::optional<T> value(std::move(values_.front()));
    values_.pop_front();
    return value;
  }

  const size_t capacity_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<T> values_;  // Guarded by mutex_.
  bool closed_ = false;   // Guarded by mutex_.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_BOUNDED_QUEUE_H_
