#ifndef SWITCHYARD_LIBS_KERNELS_MACHINE_PEAKS_H_
#define SWITCHYARD_LIBS_KERNELS_MACHINE_PEAKS_H_

#include <cstdint>

namespace switchyard {

// What a machine can do at most: the limits that benchmarks give their figures as shares of.
// A value. Measured, not looked up, because clocks and memory differ from one virtual machine to
// the next; arithmetic is that of the best instruction set, from registers.
struct MachinePeaks {
  double read_bytes_per_second = 0.0;  // From memory, not from a cache.
  double f32_flops = 0.0;
  double bf16_flops = 0.0;  // That of f32 where the processor has no bf16 instruction.
  double int8_ops = 0.0;    // A multiplication and an addition are two.
};

// The best of some rounds on `thread_count` threads of its own; takes about a second and 512 MiB.
MachinePeaks MeasurePeaks(uint32_t thread_count);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_KERNELS_MACHINE_PEAKS_H_
