#include "libs/frontend/admission.h"

#include "absl/time/time.h"

namespace switchyard {

std::optional<Admission::Ticket> Admission::TryEnter(size_t choices) {
  absl::MutexLock lock(&mutex_);
  if (open_ > 0 && (choices > choices_max_ || open_ > choices_max_ - choices)) {
    return std::nullopt;
  }
  open_ += choices;
  return Ticket(this, choices);
}

void Admission::Leave(size_t choices) {
  absl::MutexLock lock(&mutex_);
  open_ -= choices;
}

size_t Admission::open_count() const {
  absl::MutexLock lock(&mutex_);
  return open_;
}

bool Admission::WaitUntilEmpty(Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &Admission::IsEmpty),
                                 absl::FromChrono(timeout));
}

}  // namespace switchyard
