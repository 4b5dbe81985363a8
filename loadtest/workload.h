#ifndef SWITCHYARD_LOADTEST_WORKLOAD_H_
#define SWITCHYARD_LOADTEST_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "loadtest/arrival.h"
#include "loadtest/length_distribution.h"
#include "loadtest/request_spec.h"
#include "loadtest/tenants.h"
#include "loadtest/trace.h"

namespace switchyard {

// What requests look like, apart from when they come.
struct ShapeOptions {
  LengthDistribution prompt_tokens{128};  // Without the shared prefix.
  LengthDistribution output_tokens{64};
  uint32_t shared_prefix_tokens = 0;
  uint32_t prefix_groups = 1;
  uint64_t seed = 0;
};

// Request `index` of a load: a pure function, so the requests do not depend on who asks when.
RequestSpec MakeRequest(const ShapeOptions& options, const std::vector<Tenant>& tenants,
                        uint64_t index);

// Workload gives the requests of a run, one after the other.
//
// Open loop: every request has a time at which it is due. Closed loop: only the first request of
// each user has; the others follow when the user is free.
//
// One owner.
class Workload {
 public:
  virtual ~Workload() = default;

  // When the next request is due; nothing when there is none, or none before a user is free.
  virtual std::optional<double> NextDue() = 0;
  // The request of NextDue().
  virtual RequestSpec Take() = 0;
  // The next request of `user`, whose last one ended; nothing when the user has no more.
  virtual std::optional<RequestSpec> TakeForUser(uint32_t user) = 0;
  // True if users wait for their answers.
  virtual bool is_closed_loop() const = 0;
};

struct ClosedLoopOptions {
  uint32_t users = 1;
  uint64_t requests_per_user = 1;
  double ramp_s = 0.0;  // The users begin evenly over that time; 0 for all at once.
};

// `requests_max` and `duration_s` bound an open loop; the duration also bounds a closed one (by
// LoadRunner). `tenants` outlives the workload.
std::unique_ptr<Workload> MakeOpenLoop(const ArrivalOptions& arrival, const ShapeOptions& shape,
                                       const std::vector<Tenant>& tenants, uint64_t requests_max);
std::unique_ptr<Workload> MakeClosedLoop(const ClosedLoopOptions& options,
                                         const ShapeOptions& shape,
                                         const std::vector<Tenant>& tenants);
std::unique_ptr<Workload> MakeTraceReplay(std::vector<RequestSpec> requests, uint64_t requests_max);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_WORKLOAD_H_
