#ifndef SWITCHYARD_LOADTEST_LENGTH_DISTRIBUTION_H_
#define SWITCHYARD_LOADTEST_LENGTH_DISTRIBUTION_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "libs/base/rng.h"

namespace switchyard {

// LengthDistribution draws token counts. Immutable; any thread.
//
//   "128" or "fixed:128"            always 128
//   "uniform:A:B"                   A to B, both included
//   "normal:MEAN:DEVIATION"         rounded
//   "lognormal:MU:SIGMA"            exp of a normal with that mean and deviation; the median is
//                                   exp(MU)
//   "exponential:MEAN"              rounded
//
// All but the first two may end in ":MIN:MAX"; draws outside are moved to the bound. Without, the
// bounds are 1 and kTokensMax.
class LengthDistribution {
 public:
  static constexpr uint32_t kTokensMax = 1 << 20;

  // Always `tokens`.
  explicit LengthDistribution(uint32_t tokens);

  // InvalidArgument says what is wrong with `text`.
  static absl::StatusOr<LengthDistribution> Parse(std::string_view text);

  uint32_t Draw(Rng& rng) const;

  // As it was written.
  const std::string& text() const { return text_; }

 private:
  enum class Kind : uint8_t { kFixed, kUniform, kNormal, kLognormal, kExponential };

  absl::Status SetParameters(const std::string& name, const double* values, size_t count);

  Kind kind_ = Kind::kFixed;
  double first_ = 1.0;   // Fixed value, lower end, mean or mu.
  double second_ = 0.0;  // Upper end, deviation or sigma.
  uint32_t min_ = 1;
  uint32_t max_ = kTokensMax;
  std::string text_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_LENGTH_DISTRIBUTION_H_
