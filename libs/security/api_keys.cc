#include "libs/security/api_keys.h"

#include <algorithm>
#include <utility>

#include <sys/stat.h>

#include "libs/base/file.h"
#include "libs/base/log.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr size_t kFileBytesMax = 16u << 20;
constexpr size_t kNameBytesMax = 64;
constexpr std::string_view kScheme = "sha256:";

bool IsName(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) {
    return {};
  }
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

}  // namespace

absl::StatusOr<ApiKeys> ApiKeys::Parse(std::string_view text) {
  ApiKeys keys;
  int line_number = 0;
  while (!text.empty()) {
    ++line_number;
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') {
      continue;
    }
    const size_t blank = line.find_first_of(" \t");
    const std::string_view name = line.substr(0, blank);
    const std::string_view value =
        blank == std::string_view::npos ? std::string_view() : Trim(line.substr(blank));
    if (!IsName(name)) {
      return InvalidArgument("api keys: line {}: the name is not 1 to {} of A-Z a-z 0-9 - _ .",
                             line_number, kNameBytesMax);
    }
    const std::optional<Sha256Digest> digest =
        value.starts_with(kScheme) ? DigestFromHex(value.substr(kScheme.size())) : std::nullopt;
    if (!digest.has_value()) {
      return InvalidArgument("api keys: line {}: after the name comes sha256: and 64 hex digits",
                             line_number);
    }
    for (const Key& key : keys.keys_) {
      if (key.name == name || key.digest == *digest) {
        return InvalidArgument("api keys: line {}: this name or key is already there", line_number);
      }
    }
    keys.keys_.push_back({.name = std::string(name), .digest = *digest});
  }
  if (keys.keys_.empty()) {
    return InvalidArgument("api keys: there is no key");
  }
  return keys;
}

absl::StatusOr<ApiKeys> ApiKeys::Load(const std::string& path) {
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kFileBytesMax));
  auto keys = Parse(text);
  if (!keys.ok()) {
    return Annotate(keys.status(), path);
  }

  struct stat info {};

  if (stat(path.c_str(), &info) == 0 && (info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    SY_LOG_WARNING("api key file is open to other users path={} mode={:o}", path,
                   info.st_mode & 0777U);
  }
  return keys;
}

std::optional<std::string> ApiKeys::NameOf(std::string_view presented_key) const {
  const Sha256Digest digest = Sha256(presented_key);
  const Key* found = nullptr;
  for (const Key& key : keys_) {
    if (ConstantTimeEqual(key.digest, digest)) {
      found = &key;
    }
  }
  return found == nullptr ? std::nullopt : std::optional(found->name);
}

}  // namespace switchyard
