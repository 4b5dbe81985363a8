#include "libs/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace switchyard {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {}

std::optional<StopMatcher::Match> StopMatcher::FirstMatch() const {
  std::optional<Match> best;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const size_t begin = stops_[i].empty() ? std::string::npos : pending_.find(stops_[i]);
    if (begin == std::string::npos) {
      continue;
    }
    const Match match{.begin = begin, .end = begin + stops_[i].size(), .index = i};
    if (!best || std::pair(match.end, match.begin) < std::pair(best->end, best->begin)) {
      best = match;
    }
  }
  return best;
}

// The longest end of the pending text that a stop string begins with.
size_t StopMatcher::HeldSize() const {
  const std::string_view pending = pending_;
  size_t held = 0;
  for (const std::string& stop : stops_) {
    size_t size = std::min(pending.size(), stop.empty() ? 0 : stop.size() - 1);
    while (size > held && !stop.starts_with(pending.substr(pending.size() - size))) {
      --size;
    }
    held = std::max(held, size);
  }
  return held;
}

StopMatcher::Result StopMatcher::Feed(std::string_view text) {
  if (stopped_) {
    return {};
  }
  pending_.append(text);
  if (const std::optional<Match> match = FirstMatch()) {
    stopped_ = true;
    std::string out = pending_.substr(0, include_stop_ ? match->end : match->begin);
    pending_.clear();
    return {.text = std::move(out), .stop_index = match->index};
  }
  const size_t safe = pending_.size() - HeldSize();
  Result result{.text = pending_.substr(0, safe), .stop_index = std::nullopt};
  pending_.erase(0, safe);
  return result;
}

std::string StopMatcher::Flush() { return std::exchange(pending_, {}); }

}  // namespace switchyard
