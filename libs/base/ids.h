#ifndef SWITCHYARD_LIBS_BASE_IDS_H_
#define SWITCHYARD_LIBS_BASE_IDS_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include <spdlog/fmt/fmt.h>

namespace switchyard {

// StrongId is an integer that cannot be mistaken for another kind of id, an index or a count.
//
// Any thread: a value.
template <typename Tag, typename Rep>
class StrongId {
 public:
  using Value = Rep;

  constexpr StrongId() = default;

  constexpr explicit StrongId(Rep value) : value_(value) {}

  constexpr Rep value() const { return value_; }

  friend constexpr auto operator<=>(StrongId, StrongId) = default;

  template <typename H>
  friend H AbslHashValue(H state, StrongId id) {
    return H::combine(std::move(state), id.value_);
  }

 private:
  Rep value_ = 0;
};

using LayerId = StrongId<struct LayerTag, uint16_t>;    // Index of a decoder layer, 0-based.
using ExpertId = StrongId<struct ExpertTag, uint16_t>;  // Routed expert within a layer, 0-based.
using ShardId = StrongId<struct ShardTag, uint32_t>;    // Stable ordinal of a shard process.
using Incarnation =
    StrongId<struct IncarnationTag, uint64_t>;            // Grows with each start of a process.
using EpochId = StrongId<struct EpochTag, uint64_t>;      // Placement version; 0 means none yet.
using RequestId = StrongId<struct RequestTag, uint64_t>;  // One generation on one router.
using TokenId = uint32_t;                                 // Index into the vocabulary.

}  // namespace switchyard

template <typename Tag, typename Rep>
struct std::hash<switchyard::StrongId<Tag, Rep>> {
  std::size_t operator()(switchyard::StrongId<Tag, Rep> id) const noexcept {
    return std::hash<Rep>()(id.value());
  }
};

template <typename Tag, typename Rep>
struct fmt::formatter<switchyard::StrongId<Tag, Rep>> : fmt::formatter<Rep> {
  template <typename Context>
  auto format(switchyard::StrongId<Tag, Rep> id, Context& context) const {
    return fmt::formatter<Rep>::format(id.value(), context);
  }
};

#endif  // SWITCHYARD_LIBS_BASE_IDS_H_
