#include "loadtest/workload.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "libs/base/rng.h"
#include "loadtest/random_draws.h"

namespace switchyard {
namespace {

// Streams of CounterRandom, so that no two uses share draws.
constexpr uint64_t kShapeStream = 10;
constexpr uint64_t kPromptStream = 11;
constexpr uint64_t kPrefixStream = 12;
constexpr uint64_t kArrivalStream = 13;

class OpenLoop final : public Workload {
 public:
  OpenLoop(const ArrivalOptions& arrival, const ShapeOptions& shape,
           const std::vector<Tenant>& tenants, uint64_t requests_max)
      : schedule_(arrival, CounterRandom(shape.seed, kArrivalStream, 0)),
        shape_(shape),
        tenants_(tenants),
        left_(requests_max) {}

  std::optional<double> NextDue() override {
    if (left_ == 0) {
      return std::nullopt;
    }
    if (!next_) {
      next_ = schedule_.Next();
    }
    return next_;
  }

  RequestSpec Take() override {
    RequestSpec spec = MakeRequest(shape_, tenants_, index_++);
    spec.at_s = next_.value_or(0.0);
    next_.reset();
    --left_;
    return spec;
  }

  std::optional<RequestSpec> TakeForUser(uint32_t) override { return std::nullopt; }

  bool is_closed_loop() const override { return false; }

 private:
  ArrivalSchedule schedule_;
  const ShapeOptions shape_;
  const std::vector<Tenant>& tenants_;
  uint64_t left_;
  uint64_t index_ = 0;
  std::optional<double> next_;
};

class ClosedLoop final : public Workload {
 public:
  ClosedLoop(const ClosedLoopOptions& options, const ShapeOptions& shape,
             const std::vector<Tenant>& tenants)
      : options_(options), shape_(shape), tenants_(tenants), given_(options.users, 0) {}

  std::optional<double> NextDue() override {
    if (begun_ == options_.users) {
      return std::nullopt;
    }
    return options_.ramp_s * begun_ / options_.users;
  }

  RequestSpec Take() override {
    const double due = *NextDue();
    RequestSpec spec = *TakeForUser(begun_++);
    spec.at_s = due;
    return spec;
  }

  std::optional<RequestSpec> TakeForUser(uint32_t user) override {
    if (given_[user] == options_.requests_per_user) {
      return std::nullopt;
    }
    const uint64_t turn = given_[user]++;
    return MakeRequest(shape_, tenants_, turn * options_.users + user);
  }

  bool is_closed_loop() const override { return true; }

 private:
  const ClosedLoopOptions options_;
  const ShapeOptions shape_;
  const std::vector<Tenant>& tenants_;
  std::vector<uint64_t> given_;
  uint32_t begun_ = 0;
};

class TraceReplay final : public Workload {
 public:
  TraceReplay(std::vector<RequestSpec> requests, uint64_t requests_max)
      : requests_(std::move(requests)) {
    requests_.resize(std::min<uint64_t>(requests_.size(), requests_max));
  }

  std::optional<double> NextDue() override {
    return next_ < requests_.size() ? std::optional(requests_[next_].at_s) : std::nullopt;
  }

  RequestSpec Take() override { return std::move(requests_[next_++]); }

  std::optional<RequestSpec> TakeForUser(uint32_t) override { return std::nullopt; }

  bool is_closed_loop() const override { return false; }

 private:
  std::vector<RequestSpec> requests_;
  size_t next_ = 0;
};

}  // namespace

RequestSpec MakeRequest(const ShapeOptions& options, const std::vector<Tenant>& tenants,
                        uint64_t index) {
  Rng rng(CounterRandom(options.seed, kShapeStream, index));
  RequestSpec spec;
  spec.prompt_tokens = options.prompt_tokens.Draw(rng) + options.shared_prefix_tokens;
  spec.output_tokens = options.output_tokens.Draw(rng);
  spec.tenant = PickTenant(tenants, DrawUnit(rng));
  spec.prefix_tokens = options.shared_prefix_tokens;
  spec.prefix_seed = CounterRandom(options.seed, kPrefixStream, rng.Below(options.prefix_groups));
  spec.seed = CounterRandom(options.seed, kPromptStream, index);
  return spec;
}

std::unique_ptr<Workload> MakeOpenLoop(const ArrivalOptions& arrival, const ShapeOptions& shape,
                                       const std::vector<Tenant>& tenants, uint64_t requests_max) {
  return std::make_unique<OpenLoop>(arrival, shape, tenants, requests_max);
}

std::unique_ptr<Workload> MakeClosedLoop(const ClosedLoopOptions& options,
                                         const ShapeOptions& shape,
                                         const std::vector<Tenant>& tenants) {
  return std::make_unique<ClosedLoop>(options, shape, tenants);
}

std::unique_ptr<Workload> MakeTraceReplay(std::vector<RequestSpec> requests,
                                          uint64_t requests_max) {
  return std::make_unique<TraceReplay>(std::move(requests), requests_max);
}

}  // namespace switchyard
