#ifndef SWITCHYARD_LIBS_MODEL_TESTING_TINY_CHECKPOINT_H_
#define SWITCHYARD_LIBS_MODEL_TESTING_TINY_CHECKPOINT_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

#include "libs/model/model_spec.h"

namespace switchyard {

// A small but complete member of the family: 1 dense and 2 MoE layers, 8 experts in 4 groups (top 3
// of 2 groups), 1 shared expert, low-rank q, vocab 64, hidden 32, 512 positions, F32. Change fields
// at will.
ModelSpec TinyModelSpec();

struct TinyCheckpointOptions {
  ModelSpec spec = TinyModelSpec();  // weight_dtype kF32, kBf16 or kF16 is what is written.
  uint64_t seed = 1;
  bool fused_experts = false;  // transformers 5's 3-D expert tensors instead of one per expert.
  uint32_t file_count = 1;     // More than 1: shards with model.safetensors.index.json.
};

// Writes config.json and safetensors with random weights (a pure function of the options) to `dir`,
// which exists. Gate biases are of both signs; logits have a standard deviation of about 1.
absl::Status WriteTinyCheckpoint(const TinyCheckpointOptions& options, const std::string& dir);

// Rewrites the checkpoint in `from` to the existing directory `to` with all floating weights
// rounded to BF16 (the correction bias stays F32, as published checkpoints have it).
absl::Status RewriteCheckpointAsBf16(const std::string& from, const std::string& to);

// How RewriteCheckpointAsFp8 stores block scales: any f32, or powers of two, also as one byte each.
enum class Fp8Scales { kF32, kUe8m0 };

// Rewrites the single-file checkpoint in `from` to the existing directory `to` as DeepSeek ships
// FP8: projections and experts in e4m3 with a scale per 128 x 128 block, all else in BF16 (the
// correction bias stays F32).
absl::Status RewriteCheckpointAsFp8(const std::string& from, const std::string& to,
                                    Fp8Scales scales);

// TempDir is a fresh directory under the system's temporary one, removed with its content at the
// end. One owner.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// TinyCheckpoint is a written tiny checkpoint that is removed at the end; ends the process if
// writing fails. One owner; `dir()` can be opened by any number of Checkpoints, which keep their
// maps.
class TinyCheckpoint {
 public:
  TinyCheckpoint() : TinyCheckpoint(TinyCheckpointOptions{}) {}

  explicit TinyCheckpoint(const TinyCheckpointOptions& options);

  const std::string& dir() const { return dir_.path(); }

 private:
  TempDir dir_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_MODEL_TESTING_TINY_CHECKPOINT_H_
