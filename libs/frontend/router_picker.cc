#include "libs/frontend/router_picker.h"

#include <algorithm>

#include "libs/base/rng.h"

namespace switchyard {
namespace {

// Long enough to tell system prompts apart, short enough that turns of one conversation agree.
constexpr size_t kAffinityTokens = 64;

}  // namespace

uint64_t AffinityKey(std::span<const uint32_t> prompt, std::string_view cache_salt) {
  uint64_t key = Mix64(cache_salt.size());
  for (const char c : cache_salt) {
    key = Mix64(key ^ static_cast<unsigned char>(c));
  }
  for (const uint32_t token : prompt.first(std::min(prompt.size(), kAffinityTokens))) {
    key = Mix64(key ^ token);
  }
  return key;
}

std::optional<size_t> PickRouter(std::span<const RouterView> routers, uint64_t affinity_key,
                                 const RouterPickerOptions& options) {
  std::optional<size_t> least;
  std::optional<size_t> owner;
  uint64_t owner_weight = 0;
  for (size_t i = 0; i < routers.size(); ++i) {
    if (!routers[i].usable) {
      continue;
    }
    if (!least.has_value() || routers[i].load < routers[*least].load) {
      least = i;
    }
    const uint64_t weight = Mix64(affinity_key ^ Mix64(routers[i].identity));
    if (!owner.has_value() || weight > owner_weight) {
      owner = i;
      owner_weight = weight;
    }
  }
  if (!least.has_value()) {
    return std::nullopt;
  }
  const bool owner_is_fine = routers[*owner].load <= routers[*least].load + options.affinity_slack;
  return owner_is_fine ? owner : least;
}

}  // namespace switchyard
