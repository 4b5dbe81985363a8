#ifndef SWITCHYARD_BENCH_QUALITY_SCORED_TEXT_H_
#define SWITCHYARD_BENCH_QUALITY_SCORED_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/base/ids.h"

namespace switchyard {

// ScoredText is what tokens.json of bench/peers/quality.py holds: chunks of tokens, and which
// positions of each are scored.
//
// A value.
struct ScoredText {
  std::vector<std::vector<TokenId>> chunks;
  uint32_t scored_from = 0;
  uint32_t scored_count = 0;
  uint32_t vocab_size = 0;

  uint32_t scored_end() const { return scored_from + scored_count; }
};

// InvalidArgument, naming the file, when it is not such a file, a chunk ends before its last scored
// position, or a token is not in the vocabulary.
absl::StatusOr<ScoredText> ReadScoredText(const std::string& path);

}  // namespace switchyard

#endif  // SWITCHYARD_BENCH_QUALITY_SCORED_TEXT_H_
