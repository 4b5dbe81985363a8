#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "libs/transport/inproc_transport.h"
#include "libs/transport/sim_transport.h"
#include "libs/transport/testing/conformance.h"

namespace switchyard {
namespace {

class SimWorld final : public ConformanceWorld {
 public:
  explicit SimWorld(const TransportLimits& limits) : network_(1, {}, limits) {}

  std::unique_ptr<Transport> Create(const std::string& name) override {
    return network_.CreateEndpoint(name);
  }

  std::string listen_address() const override { return "127.0.0.1:0"; }

  std::string dead_address() const override { return "sim:nobody"; }

  void Stall(const std::string& name) override { network_.Stop(name); }

 private:
  SimNetwork network_;
};

class InprocWorld final : public ConformanceWorld {
 public:
  explicit InprocWorld(const TransportLimits& limits) : network_(limits) {}

  std::unique_ptr<Transport> Create(const std::string& name) override {
    return network_.CreateEndpoint(name);
  }

  std::string listen_address() const override { return "127.0.0.1:0"; }

  std::string dead_address() const override { return "inproc:nobody"; }

 private:
  InprocNetwork network_;
};

}  // namespace

INSTANTIATE_TEST_SUITE_P(
    Local, TransportConformance,
    testing::Values(
        ConformanceCase{"Sim", [](const auto& l) { return std::make_unique<SimWorld>(l); }},
        ConformanceCase{"Inproc", [](const auto& l) { return std::make_unique<InprocWorld>(l); }}),
    [](const auto& form) { return form.param.name; });

}  // namespace switchyard
