// Round trips and streams per form of transport and size. UCX echoes in a process of its own, the
// in-process form in a thread. Absolute numbers of a shared machine say little: compare forms.
#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <benchmark/benchmark.h>

#include "libs/base/check.h"
#include "libs/transport/inproc_transport.h"
#include "libs/transport/testing/child_process.h"
#include "libs/transport/ucx_transport.h"

namespace switchyard {
namespace {

constexpr Duration kPatience = std::chrono::seconds(10);

// Counts. One owner.
class Counter final : public TransportHandler {
 public:
  void OnPeerUp(PeerHandle, bool) override { up = true; }

  void OnPeerDown(PeerHandle, const absl::Status&) override { SY_CHECK(false); }

  void OnMessage(PeerHandle, std::span<const std::byte>) override { ++messages; }

  void OnSendDone(PeerHandle, SendTicket, const absl::Status&) override {}

  bool up = false;
  int64_t messages = 0;
};

class InprocEcho final : public TransportHandler {
 public:
  explicit InprocEcho(InprocNetwork& network) : transport_(network.CreateEndpoint("echo")) {
    transport_->SetHandler(this);
    address_ = transport_->Listen("").value();
    thread_ = std::thread([this] {
      while (!stop_.load()) {
        transport_->Wait(kPatience);
      }
    });
  }

  ~InprocEcho() override {
    stop_.store(true);
    transport_->Wake();
    thread_.join();
  }

  const std::string& address() const { return address_; }

  void OnPeerUp(PeerHandle, bool) override {}

  void OnPeerDown(PeerHandle, const absl::Status&) override {}

  void OnSendDone(PeerHandle, SendTicket, const absl::Status&) override {}

  void OnMessage(PeerHandle peer, std::span<const std::byte> message) override {
    transport_->Send(peer, {&message, 1}, SendTicket(1));  // Copied by this form.
  }

 private:
  std::unique_ptr<Transport> transport_;
  std::string address_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

// Keeps `window` messages of `size` bytes on their way there and back.
void Run(benchmark::State& state, Transport& transport, const std::string& address) {
  const std::vector<std::byte> bytes(static_cast<size_t>(state.range(0)));
  const int64_t window = state.range(1);
  Counter seen;
  transport.SetHandler(&seen);
  const PeerHandle peer = transport.Connect(address).value();
  while (!seen.up) {
    transport.Wait(kPatience);
  }
  const std::span<const std::byte> part(bytes);
  int64_t sent = 0;
  for (auto _ : state) {
    while (sent - seen.messages < window) {
      SY_CHECK(transport.Send(peer, {&part, 1}, SendTicket(1)) == SendResult::kAccepted);
      ++sent;
    }
    const int64_t before = seen.messages;
    while (seen.messages == before) {
      transport.Wait(kPatience);
    }
  }
  while (seen.messages < sent) {
    transport.Wait(kPatience);
  }
  state.SetItemsProcessed(seen.messages);
  state.SetBytesProcessed(2 * seen.messages * state.range(0));
  state.SetLabel(transport.description());
  transport.SetHandler(nullptr);
}

void BM_Inproc(benchmark::State& state) {
  InprocNetwork network;
  InprocEcho echo(network);
  const auto transport = network.CreateEndpoint("client");
  Run(state, *transport, echo.address());
}

void RunUcx(benchmark::State& state, UcxOptions::Mode mode, const char* name) {
  const auto transport = CreateUcxTransport({.mode = mode}, {}).value();
  const ChildProcess echo(SY_UCX_ECHO_PROGRAM, name, "127.0.0.1:0");
  Run(state, *transport, echo.first_line());
}

void BM_UcxTcp(benchmark::State& state) { RunUcx(state, UcxOptions::Mode::kTcp, "tcp"); }

void BM_UcxShm(benchmark::State& state) { RunUcx(state, UcxOptions::Mode::kShm, "shm"); }

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"bytes", "window"})->UseRealTime();
  for (const int64_t window : {1, 8}) {
    for (const int64_t bytes : {16, 14 * 1024, 112 * 1024}) {
      bench->Args({bytes, window});
    }
  }
}

BENCHMARK(BM_Inproc)->Apply(Shapes);
BENCHMARK(BM_UcxTcp)->Apply(Shapes);
BENCHMARK(BM_UcxShm)->Apply(Shapes);

}  // namespace
}  // namespace switchyard
