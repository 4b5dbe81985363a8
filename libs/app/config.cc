#include "libs/app/config.h"

#include <string>
#include <utility>

#include "google/protobuf/util/json_util.h"

#include "libs/base/file.h"
#include "libs/base/status.h"

namespace switchyard {
namespace {

constexpr size_t kConfigBytesMax = 1 << 20;

}  // namespace

absl::Status LoadConfig(const std::string& path, google::protobuf::Message& config) {
  auto text = ReadFile(path, kConfigBytesMax);
  if (!text.ok()) {
    return Annotate(text.status(), "config");
  }
  const auto parsed = google::protobuf::util::JsonStringToMessage(*text, &config);
  if (!parsed.ok()) {
    return InvalidArgument("config {}: {}", path, parsed.message().ToString());
  }
  return absl::OkStatus();
}

ConfigReader::ConfigReader(std::string prefix) : prefix_(std::move(prefix)) {}

uint32_t ConfigReader::Uint(const std::string& field, uint64_t value, const Range& range) {
  const uint64_t chosen = value == 0 ? range.default_value : value;
  if (status_.ok() && (chosen < range.min || chosen > range.max)) {
    status_ = InvalidArgument("config {}.{}: {} is not in [{}, {}]", prefix_, field, chosen,
                              range.min, range.max);
  }
  return static_cast<uint32_t>(chosen);
}

std::string ConfigReader::Text(const std::string& value, const std::string& default_value) {
  return value.empty() ? default_value : value;
}

std::string ConfigReader::Required(const std::string& field, const std::string& value) {
  if (status_.ok() && value.empty()) {
    status_ = InvalidArgument("config {}.{}: required", prefix_, field);
  }
  return value;
}

CommonOptions ReadCommon(ConfigReader& reader, const config::v1::Common& common) {
  return {.name = reader.Required("common.name", common.name()),
          .admin_address = ConfigReader::Text(common.admin_address(), "127.0.0.1:0"),
          .address_file = common.address_file(),
          .drain_seconds_max = reader.Uint("common.drain_seconds_max", common.drain_seconds_max(),
                                           {.default_value = 30, .min = 1, .max = 3600})};
}

}  // namespace switchyard
