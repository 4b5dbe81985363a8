#ifndef SWITCHYARD_SERVICES_GATEWAY_SERIAL_MAILBOX_H_
#define SWITCHYARD_SERVICES_GATEWAY_SERIAL_MAILBOX_H_

#include <deque>
#include <utility>

#include "absl/synchronization/mutex.h"

namespace switchyard {

// SerialMailbox lets many threads hand messages to one object without a thread of its own: whoever
// posts while nobody handles becomes the handler until the box is empty. Messages are handled one
// at a time, in order, without a lock held.
//
// Any thread. Its owner bounds what can be posted and not yet handled.
template <typename Message>
class SerialMailbox {
 public:
  template <typename Handle>
  void Post(Message message, Handle handle) {
    {
      absl::MutexLock lock(&mutex_);
      messages_.push_back(std::move(message));
      if (std::exchange(handling_, true)) {
        return;
      }
    }
    while (true) {
      Message next;
      {
        absl::MutexLock lock(&mutex_);
        if (messages_.empty()) {
          handling_ = false;
          return;
        }
        next = std::move(messages_.front());
        messages_.pop_front();
      }
      handle(std::move(next));
    }
  }

 private:
  absl::Mutex mutex_;
  std::deque<Message> messages_ ABSL_GUARDED_BY(mutex_);
  bool handling_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_SERIAL_MAILBOX_H_
