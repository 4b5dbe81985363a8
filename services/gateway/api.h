#ifndef SWITCHYARD_SERVICES_GATEWAY_API_H_
#define SWITCHYARD_SERVICES_GATEWAY_API_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "libs/frontend/admission.h"
#include "libs/http/http_server.h"
#include "libs/openai/request.h"
#include "libs/security/api_keys.h"
#include "libs/text/text_assets.h"
#include "services/gateway/gateway_metrics.h"
#include "services/gateway/generation.h"
#include "services/gateway/reply.h"
#include "services/gateway/router_pool.h"

namespace switchyard {

struct ApiOptions {
  std::vector<std::string> served_names;  // Not empty; the first is reported.
  std::optional<ApiKeys> keys;            // Absent: everybody may ask.
  size_t body_bytes_max = 8u << 20;
  size_t requests_max = 4096;
  Duration request_timeout = std::chrono::seconds(600);
};

// Api answers the HTTP API: authenticates, admits, parses, plans, and starts generations.
//
// Any thread. Outlives the HTTP server whose handler it is, and all generations: WaitUntilIdle.
class Api {
 public:
  Api(ApiOptions options, const TextAssets& assets, RouterPool& routers, GatewayMetrics& metrics,
      const Clock& clock);

  void Handle(HttpRequest request, ResponseWriter writer);

  // New generations are refused from now on.
  void Drain() { draining_.store(true); }

  // False when generations were still open after `timeout`.
  bool WaitUntilIdle(Duration timeout) const { return admission_.WaitUntilEmpty(timeout); }

  size_t open_count() const { return admission_.open_count(); }

  // OK when requests can be served.
  absl::Status ready() const;

 private:
  using Handler = void (Api::*)(const HttpRequest& request, const std::string& tenant, Reply reply);

  struct Route {
    std::string_view method;
    std::string_view path;
    bool open = false;  // Needs no key.
    Handler handler;
  };

  static const std::vector<Route>& Routes();

  void Dispatch(const HttpRequest& request, Reply reply);
  std::optional<std::string> TenantOf(const HttpRequest& request) const;

  void OnChat(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnCompletion(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnModels(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnModel(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnLive(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnReady(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnVersion(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnTokenize(const HttpRequest& request, const std::string& tenant, Reply reply);
  void OnDetokenize(const HttpRequest& request, const std::string& tenant, Reply reply);

  // False, and answered, when no generation can start now.
  bool CanGenerate(Reply& reply);
  // What chat and text share from the parsed body on; `planner` is PlanChat or PlanCompletion.
  template <typename Parsed, typename Planner>
  void PlanAndGenerate(const HttpRequest& request, const std::string& tenant,
                       const ApiResult<Parsed>& parsed, const Planner& planner, Reply reply);
  void Generate(const HttpRequest& request, const std::string& tenant, GenerationPlan plan,
                Reply reply);
  ParseLimits Limits() const;
  PlanContext MakePlanContext();
  std::string NewId(std::string_view prefix);
  ModelCard CardOf(const std::string& name) const;

  const ApiOptions options_;
  const TextAssets& assets_;
  RouterPool& routers_;
  GatewayMetrics& metrics_;
  const int64_t started_s_;
  const uint64_t random_seed_;
  std::atomic<uint64_t> random_counter_ = 0;
  std::atomic<bool> draining_ = false;
  Admission admission_;
  GenerationContext generation_context_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_API_H_
