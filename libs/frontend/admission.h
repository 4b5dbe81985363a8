#ifndef SWITCHYARD_LIBS_FRONTEND_ADMISSION_H_
#define SWITCHYARD_LIBS_FRONTEND_ADMISSION_H_

#include <chrono>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/synchronization/mutex.h"

#include "libs/base/clock.h"

namespace switchyard {

// Admission bounds the choices that run and wait at once. What does not fit is refused at once: a
// client that retries later is better off than one in a queue without end.
//
// Any thread. Outlives its tickets.
class Admission {
 public:
  // Room for an admitted request; gives it back when destroyed. Hand-over.
  class Ticket {
   public:
    Ticket(Ticket&& other) noexcept
        : admission_(std::exchange(other.admission_, nullptr)), choices_(other.choices_) {}

    Ticket& operator=(Ticket&&) = delete;

    ~Ticket() {
      if (admission_ != nullptr) {
        admission_->Leave(choices_);
      }
    }

   private:
    friend class Admission;

    Ticket(Admission* admission, size_t choices) : admission_(admission), choices_(choices) {}

    Admission* admission_;
    size_t choices_;
  };

  explicit Admission(size_t choices_max) : choices_max_(choices_max) {}

  // Nothing when the request does not fit (429). A request with more choices than the bound runs
  // alone rather than never.
  std::optional<Ticket> TryEnter(size_t choices);

  size_t open_count() const;

  size_t choices_max() const { return choices_max_; }

  // Waits until nothing is open; false when `timeout` passed first.
  bool WaitUntilEmpty(Duration timeout) const;

 private:
  void Leave(size_t choices);

  bool IsEmpty() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return open_ == 0; }

  const size_t choices_max_;
  mutable absl::Mutex mutex_;
  size_t open_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_FRONTEND_ADMISSION_H_
