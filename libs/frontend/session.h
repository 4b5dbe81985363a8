#ifndef SWITCHYARD_LIBS_FRONTEND_SESSION_H_
#define SWITCHYARD_LIBS_FRONTEND_SESSION_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libs/frontend/resume_state.h"
#include "libs/openai/response.h"
#include "libs/text/incremental_decoder.h"
#include "libs/text/stop_matcher.h"
#include "libs/text/tokenizer.h"

namespace switchyard {

// One token as a router sent it. A value.
struct SessionToken {
  uint32_t token = 0;
  float logprob = 0.0F;
  std::vector<std::pair<uint32_t, float>> top;  // Best alternatives, descending.
};

struct SessionOptions {
  std::vector<std::string> stop;
  bool include_stop = false;         // Leave the stop string in the text.
  std::vector<uint32_t> end_tokens;  // Tokens that end the choice; they are not shown.
  bool wants_logprobs = false;
  bool chosen_in_top = false;  // The chosen token is among the alternatives always.
};

// Session is one choice's life: tokens in, text out. It decodes, holds back what may become a stop
// string, assembles logprobs, and knows how the choice ended.
//
// One owner. The tokenizer outlives it.
class Session {
 public:
  // What a batch of tokens adds to the answer.
  struct Delta {
    std::string text;
    std::vector<PositionLogprobs> logprobs;     // One per token, when asked for.
    ChoiceFinish finish = ChoiceFinish::kNone;  // Set once, with the last delta.

    bool empty() const { return text.empty() && logprobs.empty() && finish == ChoiceFinish::kNone; }
  };

  Session(const Tokenizer& tokenizer, SessionOptions options);

  // Tokens in the order of generation. The delta's finish is kStop when a stop string ended the
  // choice: the caller then cancels the generation. After the end, tokens are ignored.
  Delta OnTokens(std::span<const SessionToken> tokens);

  // The router's word that the choice ended; brings what was held back.
  Delta OnFinish(ChoiceFinish reason);

  // Logprobs of an echoed prompt: position 0 has none, `scores` are those of positions 1 and on.
  std::vector<PositionLogprobs> PromptLogprobs(std::span<const uint32_t> prompt,
                                               std::span<const SessionToken> scores) const;

  bool finished() const { return finished_; }

  // Tokens generated until the end, those that are not shown included.
  size_t token_count() const { return resume_.tokens().size(); }

  const ResumeState& resume() const { return resume_; }

 private:
  bool IsHidden(uint32_t token) const;
  PositionLogprobs PositionOf(const SessionToken& token) const;

  const Tokenizer& tokenizer_;
  const SessionOptions options_;
  IncrementalDecoder decoder_;
  StopMatcher matcher_;
  ResumeState resume_;
  bool finished_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_FRONTEND_SESSION_H_
