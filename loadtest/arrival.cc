#include "loadtest/arrival.h"

#include "loadtest/random_draws.h"

namespace switchyard {

ArrivalSchedule::ArrivalSchedule(const ArrivalOptions& options, uint64_t seed)
    : options_(options), rng_(seed) {}

double ArrivalSchedule::Next() {
  switch (options_.kind) {
    case ArrivalKind::kConstant:
      return static_cast<double>(count_++) / options_.rate_per_s;  // No sum, so no drift.
    case ArrivalKind::kPoisson:
      at_s_ += DrawExponential(rng_) / options_.rate_per_s;
      break;
    case ArrivalKind::kBurst:
      at_s_ += DrawGamma(rng_, options_.burstiness) / (options_.rate_per_s * options_.burstiness);
      break;
  }
  return at_s_;
}

}  // namespace switchyard
