#ifndef SWITCHYARD_LIBS_APP_ADMIN_SERVER_H_
#define SWITCHYARD_LIBS_APP_ADMIN_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

#include "libs/app/health.h"
#include "libs/app/process_metrics.h"
#include "libs/http/http_server.h"
#include "libs/metrics/registry.h"

namespace switchyard {

// AdminServer serves a process's /metrics, /live, /ready and /status on an address of its own.
//
// Any thread. Registry, health and the status function outlive it.
class AdminServer {
 public:
  // `status_json` is called per request of /status, from the server's thread; null serves "{}".
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(
      const std::string& address, Registry& registry, const Health& health,
      std::function<std::string()> status_json);
  ~AdminServer();

  // Bound "host:port".
  const std::string& address() const;

 private:
  AdminServer(const std::string& address, Registry& registry, const Health& health,
              std::function<std::string()> status_json);

  HttpResponse Answer(const HttpRequest& request);

  Registry& registry_;
  const Health& health_;
  const std::function<std::string()> status_json_;
  absl::Mutex mutex_;
  ProcessMetrics process_metrics_ ABSL_GUARDED_BY(mutex_);
  HttpServer server_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_APP_ADMIN_SERVER_H_
