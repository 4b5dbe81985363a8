#ifndef SWITCHYARD_LIBS_SECURITY_API_KEYS_H_
#define SWITCHYARD_LIBS_SECURITY_API_KEYS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "libs/security/sha256.h"

namespace switchyard {

// ApiKeys knows which API keys are good, by the SHA-256 of each: the keys themselves are not kept.
//
// Immutable after Load, any thread. The file has one key per line, "name sha256:<64 hex digits>";
// empty lines and lines that start with '#' are skipped.
class ApiKeys {
 public:
  // InvalidArgument naming the line when the text is not such a file, or has no key at all.
  static absl::StatusOr<ApiKeys> Parse(std::string_view text);

  // As Parse; warns when users other than the owner can read or write the file.
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  // The name of the key, or nothing when it is not good. Every known key is compared, each in
  // constant time, so the time taken tells nothing about the keys.
  std::optional<std::string> NameOf(std::string_view presented_key) const;

  size_t size() const { return keys_.size(); }

 private:
  struct Key {
    std::string name;
    Sha256Digest digest;
  };

  std::vector<Key> keys_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_SECURITY_API_KEYS_H_
