#include <benchmark/benchmark.h>

#include "libs/base/check.h"
#include "libs/base/rng.h"
#include "libs/dispatch/dispatch_plan.h"
#include "libs/dispatch/dispatcher.h"
#include "libs/placement/planner.h"
#include "libs/wire/row_codec.h"

namespace switchyard {
namespace {

constexpr uint32_t kTopK = 8;
constexpr uint16_t kExperts = 256;
constexpr uint32_t kHidden = 2048;

RouteTable Routes(uint32_t shard_count) {
  PlanInput input{.epoch = EpochId(1),
                  .model_digest = "d",
                  .shape = {.first_moe_layer = 0, .layer_count = 1, .expert_count = kExperts},
                  .shards = {},
                  .expert_bytes = 1,
                  .replicas_wanted = 2,
                  .previous = nullptr};
  for (uint32_t i = 0; i < shard_count; ++i) {
    input.shards.push_back({.shard = ShardId(i),
                            .incarnation = Incarnation(1),
                            .address = "sim:x",
                            .memory_bytes = 0});
  }
  return *RouteTable::Build(*PlanPlacement(input));
}

std::vector<uint16_t> RandomExperts(uint32_t row_count) {
  Rng rng(1);
  std::vector<uint16_t> experts;
  for (uint32_t row = 0; row < row_count; ++row) {
    const uint64_t first = rng.Below(kExperts);
    for (uint32_t slot = 0; slot < kTopK; ++slot) {
      experts.push_back(static_cast<uint16_t>((first + 31ULL * slot) % kExperts));
    }
  }
  return experts;
}

void BM_Plan(benchmark::State& state) {
  const RouteTable routes = Routes(static_cast<uint32_t>(state.range(1)));
  const auto row_count = static_cast<uint32_t>(state.range(0));
  const std::vector<uint16_t> experts = RandomExperts(row_count);
  const std::vector<uint8_t> usable(routes.placement().shards.size(), 1);
  DispatchPlanner planner;
  DispatchPlan plan;
  for (auto _ : state) {
    SY_CHECK(planner
                 .Build({.layer = LayerId(0),
                         .row_count = row_count,
                         .top_k = kTopK,
                         .experts = experts,
                         .routes = &routes,
                         .usable = usable,
                         .entries_max = 32},
                        plan)
                 .ok());
  }
}

BENCHMARK(BM_Plan)->Args({1, 8})->Args({32, 8})->Args({512, 8})->Args({32, 64});

// A frame of 16 rows, each for two experts.
std::vector<std::byte> Frame(Dtype dtype) {
  constexpr uint32_t kRows = 16;
  std::vector<RouteEntry> entries;
  for (uint16_t expert = 0; expert < 2; ++expert) {
    for (uint32_t row = 0; row < kRows; ++row) {
      entries.push_back({.expert = expert, .slot = expert, .row = row});
    }
  }
  FrameHeader header;
  header.kind = FrameKind::kDispatch;
  header.dtype = dtype;
  header.row_count = kRows;
  header.entry_count = 2 * kRows;
  header.hidden_size = kHidden;
  const std::vector<float> row(kHidden, 0.5F);
  const size_t row_bytes = kHidden * BytesOf(dtype);
  std::vector<std::byte> rows(kRows * row_bytes);
  for (uint32_t i = 0; i < kRows; ++i) {
    SY_CHECK(EncodeRow(row, dtype, rows.data() + i * row_bytes));
  }
  const auto table = std::as_bytes(std::span(entries));
  SealFrame(header, table.size(), {table, rows});
  std::vector<std::byte> message;
  for (const auto& part : {BytesOfValue(header), table, std::span<const std::byte>(rows)}) {
    message.insert(message.end(), part.begin(), part.end());
  }
  return message;
}

void BM_EncodeFrame(benchmark::State& state) {
  for (auto _ : state) {
    benchmark::DoNotOptimize(Frame(Dtype::kBf16));
  }
}

BENCHMARK(BM_EncodeFrame);

void BM_ParseFrame(benchmark::State& state) {
  const std::vector<std::byte> message = Frame(Dtype::kBf16);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ParseFrame(message).ok());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * message.size()));
}

BENCHMARK(BM_ParseFrame);

void BM_Combine(benchmark::State& state) {
  const auto row_count = static_cast<uint32_t>(state.range(0));
  const std::vector<float> expert_rows(size_t{row_count} * kTopK * kHidden, 0.5F);
  const std::vector<float> weights(size_t{row_count} * kTopK, 0.1F);
  std::vector<float> out(size_t{row_count} * kHidden);
  for (auto _ : state) {
    Combine({.row_count = row_count,
             .top_k = kTopK,
             .hidden_size = kHidden,
             .expert_rows = expert_rows.data(),
             .weights = weights.data(),
             .out = out.data()});
    benchmark::DoNotOptimize(out.data());
  }
}

BENCHMARK(BM_Combine)->Arg(1)->Arg(32);

}  // namespace
}  // namespace switchyard
