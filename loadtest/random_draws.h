#ifndef SWITCHYARD_LOADTEST_RANDOM_DRAWS_H_
#define SWITCHYARD_LOADTEST_RANDOM_DRAWS_H_

#include "libs/base/rng.h"

// Draws from the distributions that a load needs, written out so that one seed gives one load on
// any machine (the standard library's distributions differ between implementations). Pure
// functions of the Rng they advance; any thread, one Rng each.

namespace switchyard {

double DrawUnit(Rng& rng);         // Uniform in [0, 1), 53 bits.
double DrawExponential(Rng& rng);  // Mean 1.
double DrawNormal(Rng& rng);       // Mean 0, deviation 1.

// Scale 1, so the mean is `shape` > 0.
double DrawGamma(Rng& rng, double shape);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_RANDOM_DRAWS_H_
