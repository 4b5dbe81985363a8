#ifndef SWITCHYARD_LIBS_BASE_LOG_H_
#define SWITCHYARD_LIBS_BASE_LOG_H_

#include <string>

#include <spdlog/spdlog.h>

// One line per event, key=value after a short lower-case phrase. INFO is for state changes, never
// per request; prompt and output text never appear (security's Redacted<T> does not print).
//   SY_LOG_INFO("placement active epoch={} shards={}", epoch, shard_count);
#define SY_LOG_DEBUG(...) SPDLOG_DEBUG(__VA_ARGS__)
#define SY_LOG_INFO(...) SPDLOG_INFO(__VA_ARGS__)
#define SY_LOG_WARNING(...) SPDLOG_WARN(__VA_ARGS__)
#define SY_LOG_ERROR(...) SPDLOG_ERROR(__VA_ARGS__)

namespace switchyard {

// Sends log lines of this process to stderr as "time level name file:line message". `name` is the
// process's ("router-0"). Call once, from main.
void InitLogging(const std::string& name);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_BASE_LOG_H_
