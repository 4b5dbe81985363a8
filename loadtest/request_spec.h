#ifndef SWITCHYARD_LOADTEST_REQUEST_SPEC_H_
#define SWITCHYARD_LOADTEST_REQUEST_SPEC_H_

#include <cstdint>
#include <vector>

namespace switchyard {

// One request before it is made: when, how long, and which endless sequences of random tokens its
// prompt is cut from. A value; any thread.
struct RequestSpec {
  double at_s = 0.0;  // Due so long after the start. Unused for the later requests of a user.
  uint32_t prompt_tokens = 1;  // In all.
  uint32_t output_tokens = 1;
  uint32_t tenant = 0;
  // The first `prefix_tokens` come from the sequence of `prefix_seed`, which other requests share,
  // the others from that of `seed`.
  uint32_t prefix_tokens = 0;
  uint64_t prefix_seed = 0;
  uint64_t seed = 0;  // Also sent as the seed of sampling.
  // When not empty, it replaces the prefix: one sequence for each `block_tokens` tokens.
  std::vector<uint64_t> block_seeds;
  uint32_t block_tokens = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_REQUEST_SPEC_H_
