#ifndef SWITCHYARD_LOADTEST_STATISTICS_H_
#define SWITCHYARD_LOADTEST_STATISTICS_H_

#include <cstddef>
#include <utility>
#include <vector>

// Statistics of samples: pure functions and values, any thread.

namespace switchyard {

// The value below which `percent` (0 to 100) of the samples lie, interpolated between the two
// nearest. `ascending` is not empty.
double Percentile(const std::vector<double>& ascending, double percent);

struct Summary {
  size_t count = 0;  // The rest means nothing when this is 0.
  double mean = 0.0;
  double median = 0.0;
  double std = 0.0;  // Of the population.
  double min = 0.0;
  double max = 0.0;
  std::vector<std::pair<double, double>> percentiles;  // Percent, value.
};

// Sorts `samples`.
Summary Summarize(std::vector<double>& samples, const std::vector<double>& percents);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_STATISTICS_H_
