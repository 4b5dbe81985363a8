#ifndef SWITCHYARD_LIBS_TRANSPORT_TESTING_CONFORMANCE_H_
#define SWITCHYARD_LIBS_TRANSPORT_TESTING_CONFORMANCE_H_

#include <functional>
#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "libs/transport/transport.h"

namespace switchyard {

// One form of transport under test: a fresh network of two endpoints in one thread.
//
// One owner.
class ConformanceWorld {
 public:
  virtual ~ConformanceWorld() = default;
  virtual std::unique_ptr<Transport> Create(const std::string& name) = 0;
  virtual std::string listen_address() const = 0;

  // The endpoint's process stands still (UCX: nobody calls its Progress, which is the same).
  virtual void Stall(const std::string& /*name*/) {}

  virtual std::string dead_address() const = 0;  // Nobody listens there.
};

struct ConformanceCase {
  std::string name;
  std::function<std::unique_ptr<ConformanceWorld>(const TransportLimits&)> make;
};

// What every form of Transport must do; instantiated per form with INSTANTIATE_TEST_SUITE_P.
class TransportConformance : public testing::TestWithParam<ConformanceCase> {};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_TESTING_CONFORMANCE_H_
