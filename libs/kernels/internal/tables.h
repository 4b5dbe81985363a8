#ifndef SWITCHYARD_LIBS_KERNELS_INTERNAL_TABLES_H_
#define SWITCHYARD_LIBS_KERNELS_INTERNAL_TABLES_H_

#include "libs/kernels/kernels.h"

namespace switchyard::internal {

// One table per file that is compiled for its instruction set. Any thread; immutable, live for
// ever. Calling a table's functions on a processor that lacks the instructions ends the process.
extern const Kernels kScalarKernels;
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_KERNELS_INTERNAL_TABLES_H_
