#include "libs/kernels/kernels.h"

#include <cpuid.h>

#include "libs/base/status.h"
#include "libs/kernels/internal/exp.h"
#include "libs/kernels/internal/scalar_vector.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard {
namespace {

// Not every compiler knows "f16c" in __builtin_cpu_supports, so the bit is read here.
bool HasF16c() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

// Tried once: a processor whose bf16 instruction rounds in another way does without it.
bool Bf16PairsAgree() {
  static const bool agree = internal::PairsAreInOrder(internal::PackedGemmAvx512Bf16);
  return agree;
}

bool CanRun(InstructionSet set) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
  switch (set) {
    case InstructionSet::kScalar:
      return true;
    case InstructionSet::kAvx2:
      return avx2;
    case InstructionSet::kAvx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vnni");
    case InstructionSet::kAvx512Bf16:
      return CanRun(InstructionSet::kAvx512) && __builtin_cpu_supports("avx512bf16") &&
             __builtin_cpu_supports("avx512vbmi") && Bf16PairsAgree();
  }
  return false;
}

const Kernels& TableOf(InstructionSet set) {
  switch (set) {
    case InstructionSet::kAvx2:
      return internal::kAvx2Kernels;
    case InstructionSet::kAvx512:
      return internal::kAvx512Kernels;
    case InstructionSet::kAvx512Bf16:
      return internal::kAvx512Bf16Kernels;
    case InstructionSet::kScalar:
      break;
  }
  return internal::kScalarKernels;
}

}  // namespace

std::string_view NameOf(InstructionSet set) {
  switch (set) {
    case InstructionSet::kScalar:
      return "scalar";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512:
      return "avx512-vnni";
    case InstructionSet::kAvx512Bf16:
      return "avx512-bf16";
  }
  return "unknown";
}

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> sets;
  for (const InstructionSet set : {InstructionSet::kScalar, InstructionSet::kAvx2,
                                   InstructionSet::kAvx512, InstructionSet::kAvx512Bf16}) {
    if (CanRun(set)) {
      sets.push_back(set);
    }
  }
  return sets;
}

absl::StatusOr<const Kernels*> KernelsFor(InstructionSet set) {
  if (!CanRun(set)) {
    return InvalidArgument("kernels: this processor cannot run instruction set {} ({})",
                           NameOf(set), static_cast<int>(set));
  }
  return &TableOf(set);
}

// To ask the processor takes many microseconds in a virtual machine: once is enough.
const Kernels& BestKernels() {
  static const Kernels& best = TableOf(SupportedInstructionSets().back());
  return best;
}

float Exp(float x) { return internal::ExpOf(internal::ScalarVector<1>{{x}}).lane[0]; }

}  // namespace switchyard
