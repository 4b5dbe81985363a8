#include "libs/frontend/session.h"

#include <algorithm>

namespace switchyard {
namespace {

// "<|im_end|>" and, with the full-width bar of the DeepSeek line, "<|User|>". Other added tokens
// ("<think>") are part of the answer.
bool IsControlSpelling(std::string_view bytes) {
  return bytes.starts_with("<|") || bytes.starts_with("<\xef\xbd\x9c");
}

}  // namespace

Session::Session(const Tokenizer& tokenizer, SessionOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      matcher_(options_.stop, options_.include_stop) {}

bool Session::IsHidden(uint32_t token) const {
  if (std::ranges::find(options_.end_tokens, token) != options_.end_tokens.end()) {
    return true;
  }
  return tokenizer_.IsAdded(token) && IsControlSpelling(tokenizer_.TokenBytes(token));
}

PositionLogprobs Session::PositionOf(const SessionToken& token) const {
  PositionLogprobs position;
  position.token = {.bytes = std::string(tokenizer_.TokenBytes(token.token)),
                    .logprob = token.logprob};
  bool has_chosen = false;
  for (const auto& [id, logprob] : token.top) {
    has_chosen = has_chosen || id == token.token;
    position.top.push_back({.bytes = std::string(tokenizer_.TokenBytes(id)), .logprob = logprob});
  }
  if (options_.chosen_in_top && !has_chosen) {
    position.top.push_back(position.token);
  }
  return position;
}

Session::Delta Session::OnTokens(std::span<const SessionToken> tokens) {
  Delta delta;
  for (const SessionToken& token : tokens) {
    if (finished_) {
      break;
    }
    resume_.Append(token.token);
    if (options_.wants_logprobs) {
      delta.logprobs.push_back(PositionOf(token));
    }
    if (IsHidden(token.token)) {
      continue;
    }
    StopMatcher::Result result = matcher_.Feed(decoder_.Feed(tokenizer_.TokenBytes(token.token)));
    delta.text += result.text;
    if (result.stop_index.has_value()) {
      finished_ = true;
      delta.finish = ChoiceFinish::kStop;
    }
  }
  return delta;
}

Session::Delta Session::OnFinish(ChoiceFinish reason) {
  Delta delta;
  if (finished_) {
    return delta;
  }
  finished_ = true;
  delta.finish = reason;
  StopMatcher::Result result = matcher_.Feed(decoder_.Flush());
  delta.text = std::move(result.text);
  if (result.stop_index.has_value()) {
    delta.finish = ChoiceFinish::kStop;
  } else {
    delta.text += matcher_.Flush();
  }
  return delta;
}

std::vector<PositionLogprobs> Session::PromptLogprobs(std::span<const uint32_t> prompt,
                                                      std::span<const SessionToken> scores) const {
  std::vector<PositionLogprobs> positions;
  positions.reserve(prompt.size());
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (i == 0 || i > scores.size()) {
      PositionLogprobs unknown;
      unknown.token.bytes = std::string(tokenizer_.TokenBytes(prompt[i]));
      unknown.known = false;
      positions.push_back(std::move(unknown));
    } else {
      positions.push_back(PositionOf(scores[i - 1]));
    }
  }
  return positions;
}

}  // namespace switchyard
