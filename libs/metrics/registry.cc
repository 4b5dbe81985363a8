#include "libs/metrics/registry.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace switchyard {
namespace {

std::string TypeName(prometheus::MetricType type) {
  switch (type) {
    case prometheus::MetricType::Counter:
      return "counter";
    case prometheus::MetricType::Gauge:
      return "gauge";
    case prometheus::MetricType::Histogram:
      return "histogram";
    default:
      return "other";
  }
}

}  // namespace

void Counter::Add(double amount) {
  if (counter_ != nullptr) {
    counter_->Increment(amount);
  }
}

double Counter::value() const { return counter_ == nullptr ? 0.0 : counter_->Value(); }

void Gauge::Set(double value) {
  if (gauge_ != nullptr) {
    gauge_->Set(value);
  }
}

void Gauge::Add(double amount) {
  if (gauge_ != nullptr) {
    gauge_->Increment(amount);
  }
}

double Gauge::value() const { return gauge_ == nullptr ? 0.0 : gauge_->Value(); }

void Histogram::Observe(double value) {
  if (histogram_ != nullptr) {
    histogram_->Observe(value);
  }
}

Registry::Registry() : registry_(std::make_shared<prometheus::Registry>()) {}

Registry::~Registry() = default;

Counter Registry::MakeCounter(const std::string& name, const std::string& help,
                              const Labels& labels) {
  Counter counter;
  counter.counter_ =
      &prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(labels);
  return counter;
}

Gauge Registry::MakeGauge(const std::string& name, const std::string& help, const Labels& labels) {
  Gauge gauge;
  gauge.gauge_ = &prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(labels);
  return gauge;
}

Histogram Registry::MakeHistogram(const std::string& name, const std::string& help,
                                  const std::vector<double>& buckets, const Labels& labels) {
  Histogram histogram;
  histogram.histogram_ =
      &prometheus::BuildHistogram()
           .Name(name)
           .Help(help)
           .Register(*registry_)
           .Add(labels, prometheus::Histogram::BucketBoundaries(buckets.begin(), buckets.end()));
  return histogram;
}

std::string Registry::Render() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

std::vector<MetricDescription> Registry::Describe() const {
  std::vector<MetricDescription> descriptions;
  for (const prometheus::MetricFamily& family : registry_->Collect()) {
    descriptions.push_back(
        {.name = family.name, .type = TypeName(family.type), .help = family.help});
  }
  std::sort(descriptions.begin(), descriptions.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return descriptions;
}

const std::vector<double>& StageSecondsBuckets() {
  static const std::vector<double> kBuckets = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3,
                                               5e-3, 1e-2, 2e-2, 5e-2, 0.1,  0.2,  0.5,  1.0};
  return kBuckets;
}

const std::vector<double>& RequestSecondsBuckets() {
  static const std::vector<double> kBuckets = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1,
                                               2.5,   5,    7.5,   10,   20,  40,   80,  160,  320};
  return kBuckets;
}

}  // namespace switchyard
