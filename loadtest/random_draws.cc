#include "loadtest/random_draws.h"

#include <cmath>
#include <numbers>

namespace switchyard {

double DrawUnit(Rng& rng) { return static_cast<double>(rng.Next() >> 11) * 0x1p-53; }

double DrawExponential(Rng& rng) { return -std::log1p(-DrawUnit(rng)); }

double DrawNormal(Rng& rng) {  // Box and Muller.
  const double radius = std::sqrt(2.0 * DrawExponential(rng));
  return radius * std::cos(2.0 * std::numbers::pi * DrawUnit(rng));
}

double DrawGamma(Rng& rng, double shape) {
  if (shape < 1.0) {
    const double boost = std::pow(1.0 - DrawUnit(rng), 1.0 / shape);
    return DrawGamma(rng, shape + 1.0) * boost;
  }
  // Marsaglia and Tsang, "A simple method for generating gamma variables", 2000. Each round is
  // accepted with a probability above 0.95.
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  while (true) {
    const double x = DrawNormal(rng);
    const double root = 1.0 + c * x;
    if (root <= 0.0) {
      continue;
    }
    const double v = root * root * root;
    if (-DrawExponential(rng) < 0.5 * x * x + d - d * v + d * std::log(v)) {
      return d * v;
    }
  }
}

}  // namespace switchyard
