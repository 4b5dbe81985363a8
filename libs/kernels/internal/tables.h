#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_TABLES_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_TABLES_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "libs/kernels/kernels.h"

namespace switchyard::internal {

// One table per file that is compiled for its instruction set. Any thread; immutable, live for
// ever. Calling a table's functions on a processor that lacks the instructions ends the process.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;

// The packed products of each instruction set (packed_*.cc).
void PackedGemmAvx2(const PackedGemmArgs& args);
void PackedGemmAvx512(const PackedGemmArgs& args);
void PackedGemmAvx512Bf16(const PackedGemmArgs& args);
void PrepareRowAvx2(ActivationForm form, const float* x, uint32_t columns, std::byte* out);
void PrepareRowAvx512(ActivationForm form, const float* x, uint32_t columns, std::byte* out);

// Whether the bf16 dot instruction of this processor computes order bf16x2: runs a few hard cases.
bool PairsAreInOrder(void (*packed_gemm)(const PackedGemmArgs& args));

// What int4_fit.h compares with.
struct Int4Fit {
  float lowest = 0.0F;
  float bounds[15] = {};   // Midway between neighbouring levels.
  float heights[15] = {};  // From each level to the next.
  float ends[16] = {};     // What a group's largest magnitude may become, in levels.
  size_t end_count = 0;
};

// Scales and then codes of groups of 32 values each; one per instruction set, all of the same bits.
struct Int4Fitter {
  void (*scales)(const Int4Fit& fit, const float* x, size_t group_count, float* scales);
  void (*codes)(const Int4Fit& fit, const float* x, size_t group_count, const float* scales,
                uint8_t* codes);
};

extern const Int4Fitter kScalarInt4Fitter;
extern const Int4Fitter kAvx2Int4Fitter;
extern const Int4Fitter kAvx512Int4Fitter;

// Int4Levels() + 128.
extern const std::array<uint8_t, 16> kInt4LevelBytes;

// The bf16 values of the magnitudes of e4m3 codes 0 to 127: low bytes, then high ones.
extern const std::array<uint8_t, 256> kFp8WideBytes;

// The definitions of Kernels::packed_gemm and prepare_row.
void PackedGemmScalar(const PackedGemmArgs& args);
void PrepareRowScalar(ActivationForm form, const float* x, uint32_t columns, std::byte* out);

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_TABLES_H_
