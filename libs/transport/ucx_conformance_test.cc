#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "libs/base/check.h"
#include "libs/base/clock.h"
#include "libs/transport/internal/ucx_peer.h"
#include "libs/transport/internal/ucx_settings.h"
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

// A connection whose every message the test writes, from another worker of this process.
class RawPeer {
 public:
  explicit RawPeer(const std::string& address)
      : context_(internal::CreateUcpContext({.mode = UcxOptions::Mode::kTcp}, true).value()) {
    ucp_worker_params_t worker = {};
    SY_CHECK(ucp_worker_create(context_, &worker, &worker_) == UCS_OK);
    const internal::SocketAddress parsed = internal::ParseSocketAddress(address).value();
    ucp_ep_params_t params = {};
    params.field_mask = UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR |
                        UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
    params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER;
    params.sockaddr.addr = reinterpret_cast<const sockaddr*>(&parsed.storage);
    params.sockaddr.addrlen = parsed.bytes;
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    SY_CHECK(ucp_ep_create(worker_, &params, &endpoint_) == UCS_OK);
  }

  ~RawPeer() {
    for (void* request : requests_) {
      ucp_request_free(request);
    }
    ucp_worker_destroy(worker_);
    ucp_cleanup(context_);
  }

  void Send(uint64_t sequence, const std::vector<std::byte>& bytes) {
    headers_.push_back(
        {.kind = static_cast<uint16_t>(internal::AmKind::kData), .sequence = sequence});
    ucp_request_param_t param = {};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_AM_SEND_FLAG_REPLY;
    void* request = ucp_am_send_nbx(endpoint_, 1, &headers_.back(), sizeof(headers_.back()),
                                    bytes.data(), bytes.size(), &param);
    if (UCS_PTR_IS_PTR(request)) {
      requests_.push_back(request);
    }
  }

  void Progress() { ucp_worker_progress(worker_); }

 private:
  ucp_context_h context_;
  ucp_worker_h worker_ = nullptr;
  ucp_ep_h endpoint_ = nullptr;
  std::deque<internal::AmHeader> headers_;
  std::vector<void*> requests_;
};

}  // namespace

TEST(UcxTransport, ParksLittleOfAPeerThatNeverSaidHello) {
  const auto transport = CreateUcxTransport({.mode = UcxOptions::Mode::kTcp}, {}).value();
  RawPeer peer(transport->Listen("127.0.0.1:0").value());
  const std::vector<std::byte> bytes(2048);
  for (uint64_t sequence = 1; sequence <= 3; ++sequence) {
    peer.Send(sequence, bytes);  // Before its turn: 0 would be the hello.
  }
  const SteadyClock clock;
  const Instant give_up = clock.Now() + std::chrono::seconds(20);
  while (transport->stats().protocol_closed == 0 && clock.Now() < give_up) {
    peer.Progress();
    transport->Progress();
  }
  EXPECT_EQ(transport->stats().protocol_closed, 1U);
}

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
