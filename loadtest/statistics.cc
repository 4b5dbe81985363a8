#include "loadtest/statistics.h"

#include <algorithm>
#include <cmath>

namespace switchyard {

double Percentile(const std::vector<double>& ascending, double percent) {
  const double position = percent / 100.0 * static_cast<double>(ascending.size() - 1);
  const auto below = static_cast<size_t>(position);
  if (below + 1 >= ascending.size()) {
    return ascending.back();
  }
  const double share = position - std::floor(position);
  return ascending[below] + share * (ascending[below + 1] - ascending[below]);
}

Summary Summarize(std::vector<double>& samples, const std::vector<double>& percents) {
  Summary summary{.count = samples.size()};
  if (samples.empty()) {
    return summary;
  }
  std::sort(samples.begin(), samples.end());
  const auto count = static_cast<double>(samples.size());
  double sum = 0.0;
  for (const double sample : samples) {
    sum += sample;
  }
  summary.mean = sum / count;
  double squares = 0.0;
  for (const double sample : samples) {
    squares += (sample - summary.mean) * (sample - summary.mean);
  }
  summary.std = std::sqrt(squares / count);
  summary.median = Percentile(samples, 50.0);
  summary.min = samples.front();
  summary.max = samples.back();
  for (const double percent : percents) {
    summary.percentiles.emplace_back(percent, Percentile(samples, percent));
  }
  return summary;
}

}  // namespace switchyard
