#ifndef SWITCHYARD_TESTS_INTEGRATION_SAME_TOKENS_H_
#define SWITCHYARD_TESTS_INTEGRATION_SAME_TOKENS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "libs/engine/engine_loop.h"
#include "libs/engine/testing/inproc_cluster.h"
#include "libs/model/testing/tiny_checkpoint.h"

namespace switchyard {

// What must not change, whatever the batch, the chunks, the shards or the threads.
struct Trace {
  std::vector<TokenId> tokens;
  // By position: of the F32 bits of all its logits; 0 where the prefix cache spared them.
  std::vector<uint64_t> logits_hashes;
  uint32_t cached_prompt_tokens = 0;

  friend bool operator==(const Trace&, const Trace&) = default;
};

using Traces = std::map<RequestId, Trace>;

// kF32 is the tiny checkpoint as it is. The matrices of the others end within a panel, a group of
// scales and an FP8 block; what is not FP8 is stored in F32.
enum class RandomModel { kF32, kRagged, kRaggedFp8, kRaggedFp8Ue8m0 };

// RandomCheckpoint is a written checkpoint of random weights, removed at the end; ends the process
// when it cannot be written. One owner; any number of Checkpoints can be opened on dir().
class RandomCheckpoint {
 public:
  explicit RandomCheckpoint(RandomModel model);

  const std::string& dir() const { return fp8_ ? fp8_->path() : written_.dir(); }

 private:
  TinyCheckpoint written_;
  std::optional<TempDir> fp8_;
};

// How requests are run.
struct RunShape {
  uint32_t chunk_tokens_max = 512;
  uint32_t micro_batches = 1;
  uint32_t cache_blocks = 512;
  uint32_t block_tokens = 16;
  Dtype cache_dtype = Dtype::kF32;
  bool prefix_cache = false;
};

// Called after each RunOnce with the number of calls so far.
using AfterStep = std::function<void(EngineLoop& engine, uint32_t step_count)>;

// Requests with random prompts of 1 to `prompt_max` tokens, greedy and sampled in turn. A pure
// function of the arguments.
std::vector<GenerationRequest> RandomRequests(uint64_t seed, uint32_t count, uint32_t prompt_max,
                                              uint32_t vocab_size);

// Runs the requests together to their end. Fails the test when one ends with an error, or when a
// position that is computed again has other logits than before.
Traces RunTogether(InprocCluster& cluster, const RunShape& shape,
                   const std::vector<GenerationRequest>& requests,
                   const AfterStep& after_step = {});

// Each on its own.
Traces RunAlone(InprocCluster& cluster, const RunShape& shape,
                const std::vector<GenerationRequest>& requests);

// One after the other on one engine, so that each finds what those before it left in the cache.
Traces RunInTurn(InprocCluster& cluster, const RunShape& shape,
                 const std::vector<GenerationRequest>& requests);

// Compares what both have, tokens first; `actual` may lack requests, and positions that were in the
// prefix cache. Reports the first difference.
void ExpectSame(const Traces& expected, const Traces& actual);

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_INTEGRATION_SAME_TOKENS_H_
