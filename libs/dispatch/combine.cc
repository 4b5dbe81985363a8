#include <cmath>
#include <cstddef>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "libs/dispatch/dispatcher.h"

namespace switchyard {
namespace {

// out = fma(weight, row, out), slot by slot: one rounding per element and slot, so every form below
// gives the same bits.
void AddScalar(float weight, const float* row, float* out, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    out[i] = std::fma(weight, row[i], out[i]);
  }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void AddAvx2(float weight, const float* row, float* out,
                                                 size_t count) {
  const __m256 weights = _mm256_set1_ps(weight);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 sum = _mm256_fmadd_ps(weights, _mm256_loadu_ps(row + i), _mm256_loadu_ps(out + i));
    _mm256_storeu_ps(out + i, sum);
  }
  for (; i < count; ++i) {
    out[i] = __builtin_fmaf(weight, row[i], out[i]);
  }
}
#endif

using AddFunction = void (*)(float, const float*, float*, size_t);

AddFunction BestAdd() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) {
    return AddAvx2;
  }
#endif
  return AddScalar;
}

}  // namespace

void Combine(const CombineArgs& args) {
  static const AddFunction add = BestAdd();
  const float* expert_row = args.expert_rows;
  for (uint32_t row = 0; row < args.row_count; ++row) {
    float* out = args.out + size_t{row} * args.hidden_size;
    for (uint32_t slot = 0; slot < args.top_k; ++slot) {
      add(args.weights[size_t{row} * args.top_k + slot], expert_row, out, args.hidden_size);
      expert_row += args.hidden_size;
    }
  }
}

}  // namespace switchyard
