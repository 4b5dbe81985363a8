#ifndef SWITCHYARD_LOADTEST_LOAD_OPTIONS_H_
#define SWITCHYARD_LOADTEST_LOAD_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "loadtest/arrival.h"
#include "loadtest/request_body.h"
#include "loadtest/slo.h"
#include "loadtest/target.h"
#include "loadtest/trace.h"
#include "loadtest/workload.h"

namespace switchyard {

enum class LoadKind : uint8_t { kOpenLoop, kUsers, kTrace };

// The command line as checked values. Files are named here and not yet read. A value; any thread.
struct LoadOptions {
  TargetUrl url;
  std::string url_text;
  std::string path;                  // Of the request line.
  std::vector<std::string> headers;  // "Name: value".
  bool allow_remote = false;
  bool keep_alive = true;

  LoadKind kind = LoadKind::kOpenLoop;
  ArrivalOptions arrival;
  ClosedLoopOptions users;
  TraceOptions trace;
  std::string trace_file;
  uint64_t requests_max = 0;
  double duration_s = 0.0;  // 0 for no bound.
  double timeout_s = 0.0;
  double limit_s = 0.0;
  uint32_t warmup = 0;

  ShapeOptions shape;
  BodyOptions body;
  std::string tenants_file;
  uint32_t tenant_count = 1;
  std::vector<std::string> api_keys;

  std::vector<SloBound> slo;
  std::vector<double> percentiles;
  std::string json_file;  // "-" for standard output; empty for none.
  std::string plot_dir;   // Empty for none.
  bool detailed = false;
  bool quiet = false;
};

// InvalidArgument says what is wrong with which option.
absl::StatusOr<LoadOptions> ParseLoadOptions(const std::vector<std::string>& words);

// What the load is, in words for the report.
std::string LoadInWords(const LoadOptions& options);

// What --help prints.
extern const char kLoadtestHelp[];

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_LOAD_OPTIONS_H_
