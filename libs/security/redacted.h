#ifndef SWITCHYARD_LIBS_SECURITY_REDACTED_H_
#define SWITCHYARD_LIBS_SECURITY_REDACTED_H_

#include <ostream>
#include <utility>

#include <spdlog/fmt/fmt.h>

namespace switchyard {

// Redacted holds what must not reach a log, metric, status or trace: it prints as "[redacted]".
//
// A value; as thread-safe as T.
template <typename T>
class Redacted {
 public:
  Redacted() = default;

  explicit Redacted(T value) : value_(std::move(value)) {}

  // The one way to the value; a reader of the code sees the word.
  const T& Reveal() const& { return value_; }

  T&& Reveal() && { return std::move(value_); }

  friend std::ostream& operator<<(std::ostream& out, const Redacted& /*value*/) {
    return out << "[redacted]";
  }

 private:
  T value_{};
};

}  // namespace switchyard

template <typename T>
struct fmt::formatter<switchyard::Redacted<T>> : fmt::formatter<fmt::string_view> {
  template <typename Context>
  auto format(const switchyard::Redacted<T>& /*value*/, Context& context) const {
    return fmt::formatter<fmt::string_view>::format("[redacted]", context);
  }
};

#endif  // SWITCHYARD_LIBS_SECURITY_REDACTED_H_
