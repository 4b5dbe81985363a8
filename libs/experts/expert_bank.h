#ifndef SWITCHYARD_LIBS_EXPERTS_EXPERT_BANK_H_
#define SWITCHYARD_LIBS_EXPERTS_EXPERT_BANK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/ids.h"
#include "libs/base/mutex.h"
#include "libs/model/expert_weights.h"
#include "libs/placement/placement.h"

namespace switchyard {

// ExpertBank holds the FFN weights of the (layer, expert) pairs that the placement gives a shard.
//
// Load() and Drop() from the control thread, Find() from the transport thread: any thread. A found
// expert lives as long as the returned pointer.
class ExpertBank {
 public:
  explicit ExpertBank(ExpertShape shape);

  // OutOfRange ids are InvalidArgument. Replaces what was there.
  absl::Status Load(LayerId layer, ExpertId expert, std::shared_ptr<const ExpertWeights> weights);
  void Drop(LayerId layer, ExpertId expert);

  // Null when absent or out of range.
  std::shared_ptr<const ExpertWeights> Find(LayerId layer, ExpertId expert) const;

  uint32_t resident_count() const;

  const ExpertShape& shape() const { return shape_; }

 private:
  const ExpertShape shape_;
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const ExpertWeights>> experts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_EXPERTS_EXPERT_BANK_H_
