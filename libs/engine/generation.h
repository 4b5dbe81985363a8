#ifndef SWITCHYARD_LIBS_ENGINE_GENERATION_H_
#define SWITCHYARD_LIBS_ENGINE_GENERATION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"

#include "libs/base/clock.h"
#include "libs/base/ids.h"
#include "libs/kvcache/prefix_tree.h"
#include "libs/model/sampler.h"

namespace switchyard {

// GenerationRequest is one stream of tokens to generate: all that is needed to continue it
// anywhere.
//
// A value; handed over to the step thread.
struct GenerationRequest {
  RequestId id{};                      // Unique among the live requests of one engine.
  std::vector<TokenId> prompt{};       // At least one token.
  std::vector<TokenId> resumed{};      // Generated before, elsewhere; not sent again.
  SamplingParams sampling{};           // `banned` is the engine's.
  uint32_t max_tokens = 16;            // Generated tokens at most, counting resumed ones.
  uint32_t min_tokens = 0;             // Stop tokens are not drawn before this many.
  std::vector<TokenId> stop_tokens{};  // The first one drawn is the last token.
  bool prompt_logprobs = false;        // Score prompt positions 1 and up.
  int32_t priority = 0;                // Lower runs first.
  PrefixScope prefix_scope{};          // Who shares cached beginnings of equal prompts.
  std::optional<Instant> deadline{};   // DeadlineExceeded after it.
};

// What one step brought for one request, in order.
struct GeneratedTokens {
  std::vector<SampledToken> prompt;   // Scores of prompt positions, continuing from the last event.
  std::vector<SampledToken> tokens;   // New tokens.
  uint32_t cached_prompt_tokens = 0;  // Said once, with the first token.

  bool empty() const { return prompt.empty() && tokens.empty(); }

  void Clear() {
    prompt.clear();
    tokens.clear();
    cached_prompt_tokens = 0;
  }
};

enum class FinishReason : uint8_t {
  kError,   // See `status`.
  kStop,    // A stop token was drawn.
  kLength,  // max_tokens, or the context is full.
};

struct GenerationEnd {
  absl::Status status;  // Cancelled after Cancel(); OK with kStop and kLength.
  FinishReason reason = FinishReason::kError;
  uint32_t cached_prompt_tokens = 0;  // Of the prompt, not computed for this request.
  double queue_seconds = 0;           // From arrival to the first step.
};

// EventSink is told what happens to requests, on the step thread: it only posts, never blocks. Each
// accepted request ends with exactly one OnFinished. It may call Post() and Cancel() of the engine.
class EventSink {
 public:
  virtual ~EventSink() = default;

  virtual void OnTokens(RequestId id, const GeneratedTokens& tokens) = 0;
  virtual void OnFinished(RequestId id, const GenerationEnd& end) = 0;
};

// What a request must fit.
struct GenerationBounds {
  uint32_t vocab_size = 0;
  uint32_t context_tokens_max = 0;  // Prompt plus generated tokens.
};

inline constexpr uint32_t kStopTokensMax = 64;
inline constexpr uint32_t kLogprobsMax = 20;
inline constexpr uint32_t kLogitBiasMax = 1024;

// InvalidArgument naming the field when a token id, a length or a sampling value is out of range.
absl::Status ValidateRequest(const GenerationRequest& request, const GenerationBounds& bounds);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_ENGINE_GENERATION_H_
