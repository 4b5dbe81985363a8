#ifndef SWITCHYARD_SERVICES_CLI_ARGUMENTS_H_
#define SWITCHYARD_SERVICES_CLI_ARGUMENTS_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard {

// Arguments takes "--name value", "--name=value", flags "--name" and positional words apart, and
// reports what nobody asked for. A value that begins with "--" is given with "=". One owner.
class Arguments {
 public:
  // `flags` are the names that take no value.
  Arguments(const std::vector<std::string>& words, const std::set<std::string>& flags);

  bool Flag(const std::string& name);
  // The last value given, or `fallback`.
  std::string Text(const std::string& name, const std::string& fallback);
  std::vector<std::string> Texts(const std::string& name);
  uint32_t Number(const std::string& name, uint32_t fallback, uint32_t min, uint32_t max);
  // The next positional word; empty when there is none left.
  std::string Word();

  // InvalidArgument for the first thing wrong: an unknown option, a missing or bad value, a word
  // too many. Ask after everything was read.
  absl::Status Finish();

 private:
  std::map<std::string, std::vector<std::string>> options_;
  std::set<std::string> asked_;
  std::vector<std::string> words_;
  size_t next_word_ = 0;
  absl::Status status_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_CLI_ARGUMENTS_H_
