#ifndef SWITCHYARD_LIBS_RPC_BOUNDED_WRITER_H_
#define SWITCHYARD_LIBS_RPC_BOUNDED_WRITER_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <optional>
#include <utility>

#include <grpcpp/support/status.h>

#include "absl/synchronization/mutex.h"

namespace switchyard {

// BoundedWriter queues messages for one gRPC callback stream, which takes one write at a time. It
// is a member of the reactor; the reactor passes OnWriteDone on.
//
// Any thread. `start_write` and `finish` are the reactor's StartWrite and Finish; both are called
// with the writer's lock held, which gRPC's callback API allows.
template <typename Message>
class BoundedWriter {
 public:
  BoundedWriter(size_t capacity, std::function<void(const Message*)> start_write,
                std::function<void(const grpc::Status&)> finish)
      : capacity_(capacity), start_write_(std::move(start_write)), finish_(std::move(finish)) {}

  // False when the queue is full or the stream is ending; the caller gives the stream up.
  [[nodiscard]] bool Push(Message message) {
    absl::MutexLock lock(&mutex_);
    if (end_.has_value() || queue_.size() >= capacity_) {
      return false;
    }
    queue_.push_back(std::move(message));
    if (!writing_) {
      WriteNext();
    }
    return true;
  }

  // Ends the stream with `status` once what is queued has been written. The first call counts.
  void FinishAfterQueued(grpc::Status status) {
    absl::MutexLock lock(&mutex_);
    if (end_.has_value()) {
      return;
    }
    end_ = std::move(status);
    FinishIfDrained();
  }

  // Ends the stream now, dropping what is queued (the peer is gone or misbehaves).
  void FinishNow(grpc::Status status) {
    absl::MutexLock lock(&mutex_);
    if (!end_.has_value()) {
      end_ = std::move(status);
    }
    DropQueued();
    FinishIfDrained();
  }

  void OnWriteDone(bool ok) {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    queue_.pop_front();
    if (!ok) {
      queue_.clear();
    }
    if (!queue_.empty()) {
      WriteNext();
      return;
    }
    FinishIfDrained();
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    start_write_(&queue_.front());
  }

  // The front message belongs to gRPC while it is being written.
  void DropQueued() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (queue_.size() > (writing_ ? 1U : 0U)) {
      queue_.pop_back();
    }
  }

  void FinishIfDrained() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (end_.has_value() && !writing_ && queue_.empty() && !finished_) {
      finished_ = true;
      finish_(*end_);
    }
  }

  const size_t capacity_;
  const std::function<void(const Message*)> start_write_;
  const std::function<void(const grpc::Status&)> finish_;
  absl::Mutex mutex_;
  std::deque<Message> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_RPC_BOUNDED_WRITER_H_
