#ifndef SWITCHYARD_LIBS_APP_HEALTH_H_
#define SWITCHYARD_LIBS_APP_HEALTH_H_

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace switchyard {

// Health is what /ready answers: ready, or why not. /live is true while the process can answer.
//
// Any thread.
class Health {
 public:
  void SetReady() { Set(absl::OkStatus()); }

  void SetNotReady(absl::Status why) { Set(std::move(why)); }

  absl::Status ready() const {
    absl::MutexLock lock(&mutex_);
    return ready_;
  }

 private:
  void Set(absl::Status ready) {
    absl::MutexLock lock(&mutex_);
    ready_ = std::move(ready);
  }

  mutable absl::Mutex mutex_;
  absl::Status ready_ ABSL_GUARDED_BY(mutex_) = absl::UnavailableError("starting");
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_HEALTH_H_
