#include "libs/base/log.h"

#include <chrono>
#include <string>

#include <spdlog/sinks/stdout_sinks.h>

namespace switchyard {

void InitLogging(const std::string& name) {
  auto logger = spdlog::stderr_logger_mt(name);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %n %s:%# %v");
  spdlog::set_default_logger(logger);
  spdlog::flush_on(spdlog::level::info);
}

}  // namespace switchyard
