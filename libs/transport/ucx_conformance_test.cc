#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "libs/base/check.h"
#include "libs/transport/testing/conformance.h"
#include "libs/transport/ucx_transport.h"

namespace switchyard {
namespace {

class UcxWorld final : public ConformanceWorld {
 public:
  UcxWorld(UcxOptions::Mode mode, std::string address, const TransportLimits& limits)
      : mode_(mode), address_(std::move(address)), limits_(limits) {}

  std::unique_ptr<Transport> Create(const std::string& /*name*/) override {
    auto transport = CreateUcxTransport({.mode = mode_}, limits_);
    SY_CHECK(transport.ok());
    return *std::move(transport);
  }

  std::string listen_address() const override { return address_; }

  std::string dead_address() const override { return "127.0.0.1:1"; }

 private:
  const UcxOptions::Mode mode_;
  const std::string address_;
  const TransportLimits limits_;
};

ConformanceCase Case(const char* name, UcxOptions::Mode mode, const char* address) {
  return {name, [mode, address](const TransportLimits& limits) {
            return std::make_unique<UcxWorld>(mode, address, limits);
          }};
}

}  // namespace

TEST(UcxTransport, RefusesAddressesItCannotUse) {
  const auto transport = CreateUcxTransport({}, {}).value();
  for (const char* address : {"", ":1", "nohost:1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536",
                              "127.0.0.1:-1", "[::1]:0", "::1:0", "127.0.0.1:1x", "[fd00::1:1"}) {
    EXPECT_EQ(transport->Listen(address).status().code(), absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(UcxTransport, StaysOnLoopbackOncePinned) {
  const auto transport = CreateUcxTransport({}, {}).value();
  ASSERT_TRUE(transport->Listen("127.0.0.1:0").ok());
  EXPECT_EQ(transport->Connect("192.0.2.1:9").status().code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(transport->Listen("127.0.0.1:0").status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(UcxTransport, RefusesAPortInUse) {
  const auto first = CreateUcxTransport({}, {}).value();
  const auto second = CreateUcxTransport({}, {}).value();
  const std::string address = first->Listen("127.0.0.1:0").value();
  EXPECT_FALSE(second->Listen(address).ok());
}

INSTANTIATE_TEST_SUITE_P(Ucx, TransportConformance,
                         testing::Values(Case("Tcp", UcxOptions::Mode::kTcp, "127.0.0.1:0"),
                                         Case("Shm", UcxOptions::Mode::kShm, "127.0.0.1:0"),
                                         Case("Auto", UcxOptions::Mode::kAuto, "127.0.0.1:0")),
                         [](const auto& form) { return form.param.name; });

}  // namespace switchyard
