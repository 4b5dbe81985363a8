#ifndef SWITCHYARD_LIBS_OPENAI_INTERNAL_FIELD_READER_H_
#define SWITCHYARD_LIBS_OPENAI_INTERNAL_FIELD_READER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <simdjson.h>

#include "libs/openai/api_error.h"
#include "libs/openai/request.h"

namespace switchyard::internal {

template <typename T>
struct Range {
  T min;
  T max;
};

// FieldReader takes typed members out of one object and remembers which it was asked for.
//
// Reads answer false once anything failed, so that calls chain with &&; error() then says what. A
// missing member and null leave `out` as it is. One owner; the document must outlive it.
class FieldReader {
 public:
  // `path` names the object in errors ("messages[3]."); empty for the body.
  explicit FieldReader(simdjson::dom::object object, std::string path = "")
      : object_(object), path_(std::move(path)) {}

  // The member, unless it is missing or null.
  std::optional<simdjson::dom::element> Find(std::string_view name);

  bool Bool(std::string_view name, bool* out);
  bool Int(std::string_view name, Range<int64_t> range, int64_t* out);
  bool Int(std::string_view name, Range<int64_t> range, std::optional<int64_t>* out);
  bool Number(std::string_view name, Range<double> range, double* out);
  bool Number(std::string_view name, Range<double> range, std::optional<double>* out);
  bool String(std::string_view name, size_t bytes_max, std::string* out);
  // A list of token ids, each below `limits.vocab_size` if that is known.
  bool TokenIds(std::string_view name, size_t count_max, const ParseLimits& limits,
                std::vector<uint32_t>* out);

  // Fails unless the member is missing or says nothing: null, false, 0, "", [] or {}.
  bool RequireUnset(std::string_view name);
  // Known and not used.
  void Ignore(std::string_view name);

  // Always false, to be returned.
  bool Fail(ApiError error);
  bool FailValue(std::string_view name, std::string_view what);

  // How many members were never asked for; the first `names_max` names go to `names`.
  size_t CountUnknown(size_t names_max, std::vector<std::string>* names) const;

  std::string PathOf(std::string_view name) const { return path_ + std::string(name); }

  const ApiError& error() const { return error_; }

 private:
  simdjson::dom::object object_;
  std::string path_;
  std::vector<std::string_view> known_;
  ApiError error_;
};

// The ids of `list` in order, or what is wrong with it.
ApiResult<std::vector<uint32_t>> ReadTokenIds(const simdjson::dom::array& list,
                                              const std::string& path, size_t count_max,
                                              const ParseLimits& limits);

}  // namespace switchyard::internal

#endif  // SWITCHYARD_LIBS_OPENAI_INTERNAL_FIELD_READER_H_
