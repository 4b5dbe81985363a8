#ifndef SWITCHYARD_LIBS_APP_CONFIG_H_
#define SWITCHYARD_LIBS_APP_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

#include "proto/switchyard/config/v1/config.pb.h"

namespace switchyard {

// Reads a JSON file into a config message. InvalidArgument for unknown fields and wrong types, with
// the field's name; NotFound for a missing file.
absl::Status LoadConfig(const std::string& path, google::protobuf::Message& config);

// ConfigReader turns proto3 "0 or empty means left out" into defaults and checks ranges; the first
// error is kept, so a service reads all its fields and then asks once.
//
//   ConfigReader reader("router");
//   limits.step_tokens_max = reader.Uint("step_tokens_max", config.step_tokens_max(), {512, 1,
//   65536}); SY_RETURN_IF_ERROR(reader.status());
//
// One owner.
class ConfigReader {
 public:
  struct Range {
    uint64_t default_value = 0;
    uint64_t min = 0;
    uint64_t max = 0;
  };

  // `prefix` comes before field names in errors.
  explicit ConfigReader(std::string prefix);

  uint32_t Uint(const std::string& field, uint64_t value, const Range& range);
  static std::string Text(const std::string& value, const std::string& default_value);
  // InvalidArgument when empty.
  std::string Required(const std::string& field, const std::string& value);

  const absl::Status& status() const { return status_; }

 private:
  std::string prefix_;
  absl::Status status_;
};

// The checked form of config.v1.Common.
struct CommonOptions {
  std::string name;
  std::string admin_address;
  std::string address_file;  // Empty: none.
  uint32_t drain_seconds_max = 30;
};

CommonOptions ReadCommon(ConfigReader& reader, const config::v1::Common& common);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_CONFIG_H_
