#ifndef SWITCHYARD_LIBS_EXPERTS_LOAD_COUNTER_H_
#define SWITCHYARD_LIBS_EXPERTS_LOAD_COUNTER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "libs/base/ids.h"
#include "libs/placement/placement.h"

namespace switchyard {

// What one expert has done since the process started.
struct ExpertLoad {
  uint64_t rows = 0;         // Rows computed.
  uint64_t activations = 0;  // Batches that read its weights.

  friend bool operator==(const ExpertLoad&, const ExpertLoad&) = default;
};

// LoadCounter counts rows and activations per (layer, expert).
//
// Any thread; the two numbers of one expert may be one batch apart.
class LoadCounter {
 public:
  explicit LoadCounter(ExpertShape shape);

  // One activation of `expert` by `rows` rows. Ids are in the shape.
  void Add(LayerId layer, ExpertId expert, uint32_t rows);

  ExpertLoad Of(LayerId layer, ExpertId expert) const;

  const ExpertShape& shape() const { return shape_; }

 private:
  struct Cell {
    std::atomic<uint64_t> rows{0};
    std::atomic<uint64_t> activations{0};
  };

  size_t IndexOf(LayerId layer, ExpertId expert) const;

  const ExpertShape shape_;
  std::vector<Cell> cells_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_EXPERTS_LOAD_COUNTER_H_
