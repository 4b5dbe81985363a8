#ifndef SWITCHYARD_LIBS_BASE_MUTEX_H_
#define SWITCHYARD_LIBS_BASE_MUTEX_H_

#include <mutex>

#include "absl/base/thread_annotations.h"

namespace switchyard {

// A std::mutex that clang's thread-safety analysis knows. For libs that ThreadSanitizer covers: the
// packaged absl::Mutex is opaque to it and shows races that are none.
//
// Any thread. A leaf: no call into another lib, no I/O, no log while held.
class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }

  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

// Holds a Mutex for a scope.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_->Lock();
  }

  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }

 private:
  Mutex* const mutex_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_MUTEX_H_
