#ifndef SWITCHYARD_LIBS_DISPATCH_REPLICA_SELECTOR_H_
#define SWITCHYARD_LIBS_DISPATCH_REPLICA_SELECTOR_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/ids.h"
#include "libs/placement/route_table.h"

namespace switchyard {

// ReplicaSelector chooses one replica for each activated expert of one layer. The cost of a shard
// is the number of distinct experts it must read, so an expert goes whole to one replica: experts
// with one usable holder are fixed first, the others, in ascending order, go to the usable holder
// with the least experts so far, ties to the lower shard. Same inputs, same choice.
//
// One owner; holds scratch only.
class ReplicaSelector {
 public:
  // `activated`: expert numbers, ascending, in the table's range. `usable`: by shard index, not
  // zero when the shard may be used. choice[i] becomes the shard index for activated[i].
  // Unavailable naming the first expert without a usable holder.
  absl::Status Choose(const RouteTable& routes, LayerId layer, std::span<const uint16_t> activated,
                      std::span<const uint8_t> usable, std::vector<uint32_t>& choice);

 private:
  std::vector<uint32_t> load_;  // Experts chosen so far, by shard index.
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_DISPATCH_REPLICA_SELECTOR_H_
