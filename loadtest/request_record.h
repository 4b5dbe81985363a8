#ifndef SWITCHYARD_LOADTEST_REQUEST_RECORD_H_
#define SWITCHYARD_LOADTEST_REQUEST_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// What is known of requests after a run: values, any thread.

namespace switchyard {

// How a request ended. Each request that was started ends in exactly one of these ways.
enum class Outcome : uint8_t {
  kCompleted,
  kConnect,        // No connection: refused, unreachable, no port or descriptor left.
  kReset,          // The connection broke while sending, or before the head was whole.
  kTimeout,        // Longer than --timeout.
  kHttpError,      // A status other than 200.
  kErrorEvent,     // An error object in a stream that had begun well.
  kTruncated,      // The stream ended without [DONE].
  kMalformedHttp,  // Not HTTP, or another kind of body than an event stream.
  kMalformedSse,   // Not events, or an event that is no JSON object of the API.
  kClientLimit,    // Never sent: this process may not open that many connections.
  kCutOff,         // Still open at --limit.
  kInterrupted,    // Still open at SIGINT.
};
inline constexpr size_t kOutcomeCount = 12;

// "completed", "connect", "malformed_sse", …: the names in the JSON output.
std::string_view NameOf(Outcome outcome);

struct RequestRecord {
  // Seconds since the start of the run. A request begins when its arrival is due (open loop) or
  // its user is free (closed loop), so that a late or slow generator shows in the latencies.
  double start_s = 0.0;
  double first_token_s = -1.0;  // -1 for none.
  double last_token_s = -1.0;
  double end_s = 0.0;
  double lag_s = 0.0;          // From when it was due to when it was really begun.
  std::vector<float> gaps_ms;  // Between chunks with content.

  uint32_t tenant = 0;
  uint32_t prompt_tokens_asked = 0;
  uint32_t output_tokens_asked = 0;
  // As the server's usage says; else as asked, and the number of chunks.
  uint32_t prompt_tokens = 0;
  uint32_t output_tokens = 0;
  uint32_t cached_tokens = 0;
  uint32_t chunks = 0;  // With content.
  bool has_usage = false;

  Outcome outcome = Outcome::kCompleted;
  int http_status = 0;   // 0 when no head came.
  std::string api_code;  // `code` or `type` of the error object: [a-z0-9_.-], at most 64 bytes.
};

// One second of a run.
struct SecondRow {
  uint32_t started = 0;
  uint32_t completed = 0;
  uint32_t failed = 0;
  uint32_t chunks = 0;     // With content, so output tokens where one chunk is one token.
  uint32_t in_flight = 0;  // The most at any moment of it.
};

// All of a run.
struct RunResult {
  std::vector<RequestRecord> records;  // In the order they ended.
  std::vector<SecondRow> seconds;
  double duration_s = 0.0;  // From the start to the end of the last request.
  double cpu_user_s = 0.0;  // Of this process during the run.
  double cpu_system_s = 0.0;
  uint32_t in_flight_max = 0;
  uint64_t connections = 0;  // Opened.
  bool interrupted = false;
  bool limit_reached = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LOADTEST_REQUEST_RECORD_H_
