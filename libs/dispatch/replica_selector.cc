#include "libs/dispatch/replica_selector.h"

#include <cstddef>
#include <limits>

#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr uint32_t kUndecided = std::numeric_limits<uint32_t>::max();

}  // namespace

absl::Status ReplicaSelector::Choose(const RouteTable& routes, LayerId layer,
                                     std::span<const uint16_t> activated,
                                     std::span<const uint8_t> usable,
                                     std::vector<uint32_t>& choice) {
  load_.assign(usable.size(), 0);
  choice.assign(activated.size(), kUndecided);
  for (size_t i = 0; i < activated.size(); ++i) {
    uint32_t usable_count = 0;
    uint32_t last = 0;
    for (const uint32_t shard : routes.HoldersOf(layer, ExpertId(activated[i]))) {
      if (usable[shard] != 0) {
        ++usable_count;
        last = shard;
      }
    }
    if (usable_count == 0) {
      return Unavailable("no shard connected for layer {} expert {} (epoch {})", layer,
                         activated[i], routes.epoch());
    }
    if (usable_count == 1) {
      choice[i] = last;
      ++load_[last];
    }
  }
  for (size_t i = 0; i < activated.size(); ++i) {
    if (choice[i] != kUndecided) {
      continue;
    }
    for (const uint32_t shard : routes.HoldersOf(layer, ExpertId(activated[i]))) {
      if (usable[shard] != 0 && (choice[i] == kUndecided || load_[shard] < load_[choice[i]])) {
        choice[i] = shard;
      }
    }
    ++load_[choice[i]];
  }
  return absl::OkStatus();
}

}  // namespace switchyard
