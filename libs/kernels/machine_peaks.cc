#include "libs/kernels/machine_peaks.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <immintrin.h>
#include <sched.h>

#include "libs/kernels/kernels.h"

namespace switchyard {
namespace {

// Independent sums that stay in registers: more than an instruction's latency times its rate.
constexpr int kSums = 20;
constexpr size_t kSteps = 400'000;
constexpr size_t kReadBytes = size_t{512} << 20;

#define SY_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define SY_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define SY_AVX2 __attribute__((target("avx2,fma")))

SY_AVX512 double F32Avx512() {
  __m512 sums[kSums] = {};
  const __m512 x = _mm512_set1_ps(0.5F);
  for (size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m512& sum : sums) {
      sum = _mm512_fmadd_ps(sum, x, x);
      asm volatile("" : "+v"(sum));
    }
  }
  return 2.0 * 16 * kSums * kSteps;
}

SY_AVX512_BF16 double Bf16Avx512() {
  __m512 sums[kSums] = {};
  const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f003f00));
  for (size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m512& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, x, x);
      asm volatile("" : "+v"(sum));
    }
  }
  return 2.0 * 32 * kSums * kSteps;
}

SY_AVX512 double Int8Avx512() {
  __m512i sums[kSums] = {};
  const __m512i x = _mm512_set1_epi8(1);
  for (size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m512i& sum : sums) {
      sum = _mm512_dpbusd_epi32(sum, x, x);
      asm volatile("" : "+v"(sum));
    }
  }
  return 2.0 * 64 * kSums * kSteps;
}

SY_AVX2 double F32Avx2() {
  constexpr int kFewer = 12;
  __m256 sums[kFewer] = {};
  const __m256 x = _mm256_set1_ps(0.5F);
  for (size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m256& sum : sums) {
      sum = _mm256_fmadd_ps(sum, x, x);
      asm volatile("" : "+x"(sum));
    }
  }
  return 2.0 * 8 * kFewer * kSteps;
}

SY_AVX2 double Int8Avx2() {
  constexpr int kFewer = 10;
  __m256i sums[kFewer] = {};
  __m256i x = _mm256_set1_epi8(1);
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(x));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), ones));
      asm volatile("" : "+x"(sum));
    }
  }
  return 2.0 * 32 * kFewer * kSteps;
}

double F32Scalar() {
  float sums[kSums] = {};
  for (size_t step = 0; step < kSteps; ++step) {
    for (float& sum : sums) {
      sum = sum * 0.5F + 0.5F;
      asm volatile("" : "+m"(sum));
    }
  }
  return 2.0 * kSums * kSteps;
}

double Read(const std::byte* data, size_t byte_count) {
  constexpr size_t kLanes = 32;
  constexpr size_t kAhead = 4096;  // Plain loads alone reach a sixth less.
  uint64_t sums[kLanes] = {};
  for (size_t i = 0; i < byte_count; i += sizeof(sums)) {
    for (size_t line = 0; line < sizeof(sums); line += 64) {
      __builtin_prefetch(data + i + kAhead + line);
    }
    uint64_t values[kLanes];
    std::memcpy(values, data + i, sizeof(values));
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] |= values[lane];
    }
  }
  asm volatile("" : : "m"(sums));
  return static_cast<double>(byte_count);
}

// Binds the calling thread to the `index`-th processor that it may use: threads woken together may
// otherwise stay on one for a while.
void BindThread(uint32_t index) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) == 0) {
    return;
  }
  index %= static_cast<uint32_t>(CPU_COUNT(&allowed));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed) && index-- == 0) {
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      sched_setaffinity(0, sizeof(one), &one);
      return;
    }
  }
}

// Work per second of all threads together, the best of some rounds.
double BestRate(uint32_t thread_count, const std::function<double(uint32_t)>& work) {
  constexpr int kRounds = 12;
  using Clock = std::chrono::steady_clock;
  double best = 0.0;
  Clock::time_point start;
  std::vector<double> done(thread_count);
  std::barrier begin(thread_count, [&start]() noexcept { start = Clock::now(); });
  std::barrier end(thread_count, [&]() noexcept {
    double sum = 0.0;
    for (const double part : done) {
      sum += part;
    }
    best = std::max(best, sum / std::chrono::duration<double>(Clock::now() - start).count());
  });
  std::vector<std::thread> threads;
  for (uint32_t thread = 0; thread < thread_count; ++thread) {
    threads.emplace_back([&, thread] {
      BindThread(thread);
      for (int round = 0; round < kRounds; ++round) {
        begin.arrive_and_wait();
        done[thread] = work(thread);
        end.arrive_and_wait();
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return best;
}

}  // namespace

MachinePeaks MeasurePeaks(uint32_t thread_count) {
  MachinePeaks peaks;
  double (*f32)() = F32Scalar;
  double (*bf16)() = nullptr;
  double (*int8)() = nullptr;
  switch (BestKernels().instruction_set) {
    case InstructionSet::kAvx512Bf16:
      bf16 = Bf16Avx512;
      [[fallthrough]];
    case InstructionSet::kAvx512:
      f32 = F32Avx512;
      int8 = Int8Avx512;
      break;
    case InstructionSet::kAvx2:
      f32 = F32Avx2;
      int8 = Int8Avx2;
      break;
    case InstructionSet::kScalar:
      break;
  }
  const auto rate = [&](double (*load)()) {
    return BestRate(thread_count, [load](uint32_t) { return load(); });
  };
  peaks.f32_flops = rate(f32);
  peaks.bf16_flops = bf16 == nullptr ? peaks.f32_flops : rate(bf16);
  peaks.int8_ops = int8 == nullptr ? peaks.f32_flops : rate(int8);
  const std::shared_ptr<std::byte> memory = AllocateWeights(kReadBytes);
  std::memset(memory.get(), 1, kReadBytes);
  const size_t part = kReadBytes / thread_count / 4096 * 4096;
  peaks.read_bytes_per_second = BestRate(
      thread_count, [&](uint32_t thread) { return Read(memory.get() + thread * part, part); });
  return peaks;
}

}  // namespace switchyard
