#ifndef SWITCHYARD_LIBS_FRONTEND_ROUTER_PICKER_H_
#define SWITCHYARD_LIBS_FRONTEND_ROUTER_PICKER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace switchyard {

// What is known of a router when a request needs one. A value.
struct RouterView {
  bool usable = false;    // Ready, and not excluded for this request.
  uint64_t identity = 0;  // Stable while the router lives; affinity hangs on it.
  size_t load = 0;        // Choices running and waiting there.
};

struct RouterPickerOptions {
  // Choices by which a router with the prefix in its cache may exceed the least loaded one.
  size_t affinity_slack = 8;
};

// A key that is equal for prompts with the same beginning and cache salt.
uint64_t AffinityKey(std::span<const uint32_t> prompt, std::string_view cache_salt);

// The index of the router to use: the one to which the key belongs (by rendezvous hashing, so that
// few keys move when routers come and go) unless it is busier than the least loaded one by more
// than the slack; then that one. Nothing when none is usable. Pure; any thread.
std::optional<size_t> PickRouter(std::span<const RouterView> routers, uint64_t affinity_key,
                                 const RouterPickerOptions& options = {});

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_FRONTEND_ROUTER_PICKER_H_
