#include "loadtest/svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string_view>

#include <spdlog/fmt/fmt.h>

#include "loadtest/slo.h"

namespace switchyard {
namespace {

// Pixels.
constexpr double kWidth = 720.0;
constexpr double kHeight = 420.0;
constexpr double kLeft = 70.0;
constexpr double kRight = 20.0;
constexpr double kTop = 40.0;
constexpr double kBottom = 50.0;
constexpr size_t kPointsMax = 1000;
constexpr std::array<std::string_view, 4> kColors = {"#1f5fa8", "#c2571a", "#3a8c4c", "#7a4fa3"};

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

// A distance of 1, 2 or 5 times a power of ten that gives 4 to 10 ticks up to `top`.
double TickStep(double top) {
  const double rough = top / 5.0;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) {
      return factor * power;
    }
  }
  return 10.0 * power;
}

// The scale of one axis: from 0 to `top`, which is a tick.
struct Axis {
  double step = 1.0;
  double top = 1.0;
};

Axis AxisTo(double largest) {
  if (!(largest > 0.0) || !std::isfinite(largest)) {
    return {.step = 0.2, .top = 1.0};
  }
  const double step = TickStep(largest);
  return {.step = step, .top = step * std::ceil(largest / step - 1e-9)};
}

class Canvas {
 public:
  Canvas(const Axis& x, const Axis& y) : x_(x), y_(y) {
    Add("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        kWidth, kHeight);
  }

  template <typename... Args>
  void Add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }

  double X(double value) const { return kLeft + value / x_.top * (kWidth - kLeft - kRight); }

  double Y(double value) const {
    return kHeight - kBottom - value / y_.top * (kHeight - kTop - kBottom);
  }

  void Grid() {
    for (int i = 0; i * x_.step <= x_.top * 1.0001; ++i) {
      const double x = X(i * x_.step);
      Add("<path d=\"M{:.1f} {:.1f}V{:.1f}\" stroke=\"#ddd\"/>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.6g}</text>\n",
          x, kTop, Y(0.0), x, Y(0.0) + 16.0, i * x_.step);
    }
    for (int i = 0; i * y_.step <= y_.top * 1.0001; ++i) {
      const double y = Y(i * y_.step);
      Add("<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"#ddd\"/>"
          "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.6g}</text>\n",
          kLeft, y, kWidth - kRight, kLeft - 6.0, y + 4.0, i * y_.step);
    }
  }

  void Line(const PlotLine& line, size_t index) {
    const std::string_view color = kColors.at(index % kColors.size());
    const size_t stride = line.points.size() / kPointsMax + 1;
    Add("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\" points=\"", color);
    for (size_t i = 0; i < line.points.size(); i += stride) {
      Add("{:.1f},{:.1f} ", X(line.points[i].first), Y(line.points[i].second));
    }
    if (!line.points.empty()) {  // Whatever the stride, the last point is the end.
      Add("{:.1f},{:.1f}", X(line.points.back().first), Y(line.points.back().second));
    }
    Add("\"/>\n<text x=\"{:.1f}\" y=\"{:.1f}\" fill=\"{}\">{}</text>\n",
        kLeft + 8.0 + 150.0 * static_cast<double>(index), kTop - 6.0, color, Escape(line.name));
  }

  std::string Take() {
    text_ += "</svg>\n";
    return std::move(text_);
  }

 private:
  const Axis x_;
  const Axis y_;
  std::string text_;
};

Plot CdfPlot(const RunResult& run, Metric metric, std::string title) {
  std::vector<double> samples;
  for (const RequestRecord& record : run.records) {
    if (record.outcome != Outcome::kCompleted) {
      continue;
    }
    if (metric == Metric::kItl) {
      samples.insert(samples.end(), record.gaps_ms.begin(), record.gaps_ms.end());
    } else if (const std::optional<double> value = Measure(record, metric)) {
      samples.push_back(*value);
    }
  }
  Plot plot{.title = std::move(title), .x_label = "milliseconds", .y_label = "% of samples"};
  plot.lines.push_back(CumulativeShare(fmt::format("{} samples", samples.size()), samples));
  return plot;
}

Plot ThroughputPlot(const RunResult& run) {
  Plot plot{.title = "Output over time", .x_label = "seconds", .y_label = "in that second"};
  plot.lines = {{.name = "chunks (tokens)"}, {.name = "requests in flight"}};
  for (size_t i = 0; i < run.seconds.size(); ++i) {
    const auto second = static_cast<double>(i);
    plot.lines[0].points.emplace_back(second, run.seconds[i].chunks);
    plot.lines[1].points.emplace_back(second, run.seconds[i].in_flight);
  }
  return plot;
}

}  // namespace

std::string SvgOf(const Plot& plot) {
  double x_max = 0.0;
  double y_max = 0.0;
  for (const PlotLine& line : plot.lines) {
    for (const auto& [x, y] : line.points) {
      x_max = std::max(x_max, x);
      y_max = std::max(y_max, y);
    }
  }
  Canvas canvas(AxisTo(x_max), AxisTo(y_max));
  canvas.Grid();
  canvas.Add("<text x=\"{:.1f}\" y=\"18\" font-size=\"15\">{}</text>\n", kLeft, Escape(plot.title));
  canvas.Add("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", kWidth / 2.0,
             kHeight - 12.0, Escape(plot.x_label));
  canvas.Add(
      "<text x=\"16\" y=\"{:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1f})\">"
      "{}</text>\n",
      kHeight / 2.0, kHeight / 2.0, Escape(plot.y_label));
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    canvas.Line(plot.lines[i], i);
  }
  return canvas.Take();
}

PlotLine CumulativeShare(std::string name, std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  PlotLine line{.name = std::move(name)};
  line.points.reserve(samples.size() + 1);
  line.points.emplace_back(0.0, 0.0);
  for (size_t i = 0; i < samples.size(); ++i) {
    line.points.emplace_back(
        samples[i], 100.0 * static_cast<double>(i + 1) / static_cast<double>(samples.size()));
  }
  return line;
}

std::vector<std::pair<std::string, std::string>> PlotsOf(const RunResult& run) {
  return {
      {"ttft_cdf.svg", SvgOf(CdfPlot(run, Metric::kTtft, "Time to the first token"))},
      {"itl_cdf.svg", SvgOf(CdfPlot(run, Metric::kItl, "Time between tokens"))},
      {"throughput.svg", SvgOf(ThroughputPlot(run))},
  };
}

}  // namespace switchyard
