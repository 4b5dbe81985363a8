#ifndef SWITCHYARD_LIBS_METRICS_REGISTRY_H_
#define SWITCHYARD_LIBS_METRICS_REGISTRY_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
class Registry;
}  // namespace prometheus

namespace switchyard {

using Labels = std::map<std::string, std::string>;

// A value that only grows. Any thread; a default-made handle counts nothing.
class Counter {
 public:
  void Add(double amount = 1.0);
  double value() const;

 private:
  friend class Registry;
  prometheus::Counter* counter_ = nullptr;
};

// A value that goes up and down. Any thread.
class Gauge {
 public:
  void Set(double value);
  void Add(double amount);
  double value() const;

 private:
  friend class Registry;
  prometheus::Gauge* gauge_ = nullptr;
};

// A distribution over fixed buckets. Any thread.
class Histogram {
 public:
  void Observe(double value);

 private:
  friend class Registry;
  prometheus::Histogram* histogram_ = nullptr;
};

// One metric, as docs/metrics.md lists it.
struct MetricDescription {
  std::string name;
  std::string type;  // "counter", "gauge", "histogram"
  std::string help;
};

// Registry makes metrics and renders them. A component lists its metrics in one struct built from a
// Registry&; names are switchyard_<component>_<what>_<unit>, labels from a small known set.
//
// Any thread. Metrics are handles that stay valid while the registry lives.
class Registry {
 public:
  Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  ~Registry();

  Counter MakeCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge MakeGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram MakeHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& buckets, const Labels& labels = {});

  // Prometheus text format 0.0.4.
  std::string Render() const;

  // Every metric made so far, by name.
  std::vector<MetricDescription> Describe() const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

// Bucket edges in seconds for stages of a step and for whole requests.
const std::vector<double>& StageSecondsBuckets();
const std::vector<double>& RequestSecondsBuckets();

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_METRICS_REGISTRY_H_
