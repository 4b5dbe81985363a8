#include "loadtest/json_lines.h"

#include <simdjson.h>

#include "libs/base/status.h"

namespace switchyard {
namespace {

using simdjson::dom::element;

class DomLine final : public JsonLine {
 public:
  explicit DomLine(const element& root) : root_(root) {}

  absl::StatusOr<std::string> Text(const char* name) const override {
    const std::optional<element> member = Find(name);
    if (!member) {
      return std::string();
    }
    std::string_view text;
    int64_t number = 0;
    if (member->get(text) == simdjson::SUCCESS) {
      return std::string(text);
    }
    if (member->get(number) == simdjson::SUCCESS) {
      return fmt::format("{}", number);
    }
    return InvalidArgument("{} is not text", name);
  }

  absl::StatusOr<std::optional<double>> Number(const char* name) const override {
    const std::optional<element> member = Find(name);
    if (!member) {
      return std::optional<double>();
    }
    double number = 0.0;
    if (member->get(number) != simdjson::SUCCESS) {
      return InvalidArgument("{} is not a number", name);
    }
    return std::optional<double>(number);
  }

  absl::StatusOr<std::vector<uint64_t>> Numbers(const char* name) const override {
    std::vector<uint64_t> numbers;
    const std::optional<element> member = Find(name);
    if (!member) {
      return numbers;
    }
    simdjson::dom::array list;
    if (member->get(list) != simdjson::SUCCESS) {
      return InvalidArgument("{} is not a list", name);
    }
    for (const element item : list) {
      uint64_t number = 0;
      if (item.get(number) != simdjson::SUCCESS) {
        return InvalidArgument("{} holds something that is not a whole number", name);
      }
      numbers.push_back(number);
    }
    return numbers;
  }

 private:
  std::optional<element> Find(const char* name) const {
    element member;
    if (root_[name].get(member) != simdjson::SUCCESS || member.is_null()) {
      return std::nullopt;
    }
    return member;
  }

  element root_;
};

}  // namespace

absl::Status ForEachJsonLine(std::string_view text,
                             absl::FunctionRef<absl::Status(const JsonLine&)> reader) {
  simdjson::dom::parser parser;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
    }
    if (line.find_first_not_of(" \t") == std::string_view::npos || line[0] == '#') {
      continue;
    }
    element root;
    if (parser.parse(line.data(), line.size()).get(root) != simdjson::SUCCESS ||
        !root.is_object()) {
      return InvalidArgument("line {}: not a JSON object", number);
    }
    const absl::Status status = reader(DomLine(root));
    if (!status.ok()) {
      return Annotate(status, fmt::format("line {}", number));
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard
