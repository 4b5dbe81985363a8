#include "services/cli/arguments.h"

#include <charconv>
#include <set>
#include <string>
#include <vector>

#include "libs/base/status.h"

namespace switchyard {

Arguments::Arguments(const std::vector<std::string>& words, const std::set<std::string>& flags) {
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.rfind("--", 0) != 0) {
      words_.push_back(word);
      continue;
    }
    const size_t equals = word.find('=');
    const std::string name = word.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (equals != std::string::npos) {
      options_[name].push_back(word.substr(equals + 1));
    } else if (flags.contains(name)) {
      options_[name].emplace_back("true");
    } else if (i + 1 < words.size() && words[i + 1].rfind("--", 0) != 0) {
      options_[name].push_back(words[++i]);
    } else if (status_.ok()) {
      status_ = InvalidArgument("--{} needs a value", name);
    }
  }
}

bool Arguments::Flag(const std::string& name) { return !Texts(name).empty(); }

std::string Arguments::Text(const std::string& name, const std::string& fallback) {
  const std::vector<std::string> values = Texts(name);
  return values.empty() ? fallback : values.back();
}

std::vector<std::string> Arguments::Texts(const std::string& name) {
  asked_.insert(name);
  const auto it = options_.find(name);
  return it == options_.end() ? std::vector<std::string>() : it->second;
}

uint32_t Arguments::Number(const std::string& name, uint32_t fallback, uint32_t min, uint32_t max) {
  const std::string text = Text(name, "");
  if (text.empty()) {
    return fallback;
  }
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    if (status_.ok()) {
      status_ = InvalidArgument("--{} {}: not a number in [{}, {}]", name, text, min, max);
    }
    return fallback;
  }
  return value;
}

std::string Arguments::Word() {
  return next_word_ < words_.size() ? words_[next_word_++] : std::string();
}

absl::Status Arguments::Finish() {
  SY_RETURN_IF_ERROR(status_);
  for (const auto& [name, values] : options_) {
    if (!asked_.contains(name)) {
      return InvalidArgument("unknown option --{}", name);
    }
  }
  if (next_word_ < words_.size()) {
    return InvalidArgument("unexpected argument '{}'", words_[next_word_]);
  }
  return absl::OkStatus();
}

}  // namespace switchyard
