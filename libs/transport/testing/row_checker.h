#ifndef SWITCHYARD_LIBS_TRANSPORT_TESTING_ROW_CHECKER_H_
#define SWITCHYARD_LIBS_TRANSPORT_TESTING_ROW_CHECKER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <spdlog/fmt/fmt.h>

namespace switchyard {

// RowChecker holds the invariant "every row is answered exactly once, whatever happens". A key
// names one row asked for (for instance step, layer, row and expert packed into 64 bits).
//
// One owner; a value.
class RowChecker {
 public:
  void Asked(uint64_t key) { ++rows_[key].asked; }

  void Answered(uint64_t key) { ++rows_[key].answered; }

  size_t asked_count() const { return rows_.size(); }

  std::vector<uint64_t> Unanswered() const {
    return Where([](const Row& row) { return row.answered < row.asked; });
  }

  std::vector<uint64_t> AnsweredTwice() const {
    return Where([](const Row& row) { return row.asked > 0 && row.answered > row.asked; });
  }

  std::vector<uint64_t> NeverAsked() const {
    return Where([](const Row& row) { return row.asked == 0; });
  }

  // Empty when the invariant holds; else how many keys break it, and the first of them.
  std::string Violations() const {
    std::string text;
    Append("unanswered", Unanswered(), text);
    Append("answered twice", AnsweredTwice(), text);
    Append("never asked", NeverAsked(), text);
    return text;
  }

 private:
  struct Row {
    uint32_t asked = 0;
    uint32_t answered = 0;
  };

  template <typename Predicate>
  std::vector<uint64_t> Where(Predicate predicate) const {
    std::vector<uint64_t> keys;
    for (const auto& [key, row] : rows_) {
      if (predicate(row)) {
        keys.push_back(key);
      }
    }
    return keys;
  }

  static void Append(const char* what, const std::vector<uint64_t>& keys, std::string& text) {
    if (!keys.empty()) {
      text += fmt::format("{} {}, first key {:#x}; ", keys.size(), what, keys.front());
    }
  }

  std::map<uint64_t, Row> rows_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_TRANSPORT_TESTING_ROW_CHECKER_H_
