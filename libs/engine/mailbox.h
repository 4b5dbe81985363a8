#ifndef SWITCHYARD_LIBS_ENGINE_MAILBOX_H_
#define SWITCHYARD_LIBS_ENGINE_MAILBOX_H_

#include <cstddef>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"

#include "libs/base/ids.h"
#include "libs/base/mutex.h"
#include "libs/engine/generation.h"

namespace switchyard {

// Mailbox hands requests and cancellations to the step thread. Both are bounded by the number of
// live requests: a cancellation is a mark on one of them, so none is lost to a full queue.
//
// Any thread may Post, Cancel and Close; the rest belongs to the step thread.
class Mailbox {
 public:
  // `live_max` bounds the requests that have not finished.
  explicit Mailbox(size_t live_max) : live_max_(live_max) {}

  // ResourceExhausted at the bound, InvalidArgument when the id is live, Unavailable once closed.
  absl::Status Post(GenerationRequest request);

  // Marks a live request; false when it is not live (any more).
  bool Cancel(RequestId id);

  // Refuses all further requests.
  void Close();

  // Moves what came since the last call to `requests` and `cancelled`, which are overwritten. A
  // cancelled request was taken before, or is among `requests`.
  void Take(std::vector<GenerationRequest>& requests, std::vector<RequestId>& cancelled);

  // The request has finished; its id may be used again.
  void Remove(RequestId id);

  size_t live_count() const;

 private:
  const size_t live_max_;
  mutable Mutex mutex_;
  absl::flat_hash_map<RequestId, bool> live_ ABSL_GUARDED_BY(mutex_);  // True: marked.
  std::vector<GenerationRequest> posted_ ABSL_GUARDED_BY(mutex_);
  std::vector<RequestId> cancelled_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_MAILBOX_H_
