#ifndef SWITCHYARD_LIBS_KERNELS_WEIGHT_MEMORY_H_
#define SWITCHYARD_LIBS_KERNELS_WEIGHT_MEMORY_H_

#include <cstddef>
#include <memory>

namespace switchyard {

// Memory for packed weights, aligned to 64 bytes. It comes out of slabs of huge pages where the
// system has them, because experts are smaller than a huge page and reading weights through small
// ones costs a third of the bandwidth and more. Given back when the last owner goes: pieces of one
// size are used again for that size, and a slab returns to the system when all of it is free.
//
// Any thread. The memory is not initialised; whoever touches it first decides its NUMA node.
std::shared_ptr<std::byte> AllocateWeights(size_t byte_count);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_WEIGHT_MEMORY_H_
