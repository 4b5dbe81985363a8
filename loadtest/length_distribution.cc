#include "loadtest/length_distribution.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <vector>

#include "libs/base/status.h"
#include "loadtest/random_draws.h"

namespace switchyard {
namespace {

constexpr char kForms[] =
    "a number, fixed:N, uniform:A:B, normal:MEAN:DEVIATION[:MIN:MAX], lognormal:MU:SIGMA[:MIN:MAX] "
    "or exponential:MEAN[:MIN:MAX]";

// The numbers of "a:b:c"; false if one is not a finite number >= 0.
bool SplitNumbers(std::string_view text, std::vector<double>* out) {
  while (true) {
    const size_t colon = text.find(':');
    const std::string_view part = text.substr(0, colon);
    double value = 0.0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || !std::isfinite(value) ||
        value < 0.0) {
      return false;
    }
    out->push_back(value);
    if (colon == std::string_view::npos) {
      return true;
    }
    text.remove_prefix(colon + 1);
  }
}

bool IsTokenCount(double value) {
  return value >= 1.0 && value <= LengthDistribution::kTokensMax && value == std::floor(value);
}

}  // namespace

LengthDistribution::LengthDistribution(uint32_t tokens)
    : first_(tokens), text_(fmt::format("fixed:{}", tokens)) {}

absl::StatusOr<LengthDistribution> LengthDistribution::Parse(std::string_view text) {
  const size_t colon = text.find(':');
  const bool named = !text.empty() && (text[0] < '0' || text[0] > '9');
  if (named && colon == std::string_view::npos) {
    return InvalidArgument("'{}' is not {}", text, kForms);
  }
  const std::string name(named ? text.substr(0, colon) : "fixed");
  std::vector<double> values;
  if (!SplitNumbers(named ? text.substr(colon + 1) : text, &values)) {
    return InvalidArgument("'{}' is not {}", text, kForms);
  }
  LengthDistribution result(1);
  absl::Status status = result.SetParameters(name, values.data(), values.size());
  if (!status.ok()) {
    return Annotate(status, fmt::format("'{}'", text));
  }
  result.text_ = named ? std::string(text) : fmt::format("fixed:{}", text);
  return result;
}

absl::Status LengthDistribution::SetParameters(const std::string& name, const double* values,
                                               size_t count) {
  struct Form {
    Kind kind;
    size_t parameters;
    bool bounds;
  };

  static const std::map<std::string, Form> kByName = {
      {"fixed", {Kind::kFixed, 1, false}},
      {"uniform", {Kind::kUniform, 2, false}},
      {"normal", {Kind::kNormal, 2, true}},
      {"lognormal", {Kind::kLognormal, 2, true}},
      {"exponential", {Kind::kExponential, 1, true}},
  };
  const auto it = kByName.find(name);
  if (it == kByName.end()) {
    return InvalidArgument("not {}", kForms);
  }
  const Form form = it->second;
  if (count != form.parameters && !(form.bounds && count == form.parameters + 2)) {
    return InvalidArgument("not {}", kForms);
  }
  kind_ = form.kind;
  first_ = values[0];
  second_ = form.parameters == 2 ? values[1] : 0.0;
  if (count == form.parameters + 2) {
    const double low = values[count - 2];
    const double high = values[count - 1];
    if (!IsTokenCount(low) || !IsTokenCount(high) || low > high) {
      return InvalidArgument("the bounds must be whole, 1 to {}, in order", kTokensMax);
    }
    min_ = static_cast<uint32_t>(low);
    max_ = static_cast<uint32_t>(high);
  }
  if ((kind_ == Kind::kFixed || kind_ == Kind::kUniform) && !IsTokenCount(first_)) {
    return InvalidArgument("a length must be whole, 1 to {}", kTokensMax);
  }
  if (kind_ == Kind::kUniform && (!IsTokenCount(second_) || second_ < first_)) {
    return InvalidArgument("the ends must be whole, 1 to {}, in order", kTokensMax);
  }
  return absl::OkStatus();
}

uint32_t LengthDistribution::Draw(Rng& rng) const {
  double value = first_;
  switch (kind_) {
    case Kind::kFixed:
      break;
    case Kind::kUniform:
      value = first_ + std::floor(DrawUnit(rng) * (second_ - first_ + 1.0));
      break;
    case Kind::kNormal:
      value = first_ + second_ * DrawNormal(rng);
      break;
    case Kind::kLognormal:
      value = std::exp(first_ + second_ * DrawNormal(rng));
      break;
    case Kind::kExponential:
      value = first_ * DrawExponential(rng);
      break;
  }
  const double low = min_;
  const double high = max_;
  return static_cast<uint32_t>(std::clamp(std::round(value), low, high));
}

}  // namespace switchyard
