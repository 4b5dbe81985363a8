#include "libs/kernels/internal/kernel_body.h"
#include "libs/kernels/internal/scalar_vector.h"
#include "libs/kernels/internal/tables.h"

namespace switchyard::internal {

const Kernels kScalarKernels = KernelBody<ScalarVector<16>>::Table(
    InstructionSet::kScalar, PackedGemmScalar, PrepareRowScalar);

}  // namespace switchyard::internal
