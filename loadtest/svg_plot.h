#ifndef SWITCHYARD_LOADTEST_SVG_PLOT_H_
#define SWITCHYARD_LOADTEST_SVG_PLOT_H_

#include <string>
#include <utility>
#include <vector>

#include "loadtest/request_record.h"

// Line plots as SVG files that any browser shows. Pure functions and values, any thread.

namespace switchyard {

struct PlotLine {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x ascending, y not negative.
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<PlotLine> lines;
};

// A plot from the origin on. Lines of many points are thinned out to what can be seen.
std::string SvgOf(const Plot& plot);

// The share of samples that are at most x, in percent, over x.
PlotLine CumulativeShare(std::string name, std::vector<double> samples);

// File name and content of each plot of a run: ttft_cdf.svg, itl_cdf.svg, throughput.svg.
std::vector<std::pair<std::string, std::string>> PlotsOf(const RunResult& run);

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_SVG_PLOT_H_
