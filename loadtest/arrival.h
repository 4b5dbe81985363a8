#ifndef SWITCHYARD_LOADTEST_ARRIVAL_H_
#define SWITCHYARD_LOADTEST_ARRIVAL_H_

#include <cstdint>

#include "libs/base/rng.h"

namespace switchyard {

enum class ArrivalKind : uint8_t { kConstant, kPoisson, kBurst };

struct ArrivalOptions {
  ArrivalKind kind = ArrivalKind::kPoisson;
  double rate_per_s = 1.0;
  // Shape of the gamma-distributed gaps of kBurst: below 1 arrivals come in bursts, 1 is Poisson,
  // above 1 they are more even than Poisson.
  double burstiness = 1.0;
};

// ArrivalSchedule says when requests arrive, whatever becomes of the earlier ones: that is what
// makes a load open-loop. The same options and seed give the same times.
//
// One owner.
class ArrivalSchedule {
 public:
  ArrivalSchedule(const ArrivalOptions& options, uint64_t seed);

  // Seconds from the start to the next arrival; never falls. The first of kConstant is at 0.
  double Next();

 private:
  ArrivalOptions options_;
  Rng rng_;
  uint64_t count_ = 0;
  double at_s_ = 0.0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_ARRIVAL_H_
