#include "services/gateway/api.h"

#include <algorithm>
#include <ctime>
#include <memory>
#include <random>
#include <utility>

#include "libs/app/version.h"
#include "libs/base/rng.h"
#include "libs/base/status.h"
#include "services/gateway/tokenize_api.h"

namespace switchyard {
namespace {

constexpr std::string_view kModelsPath = "/v1/models/";
constexpr size_t kRequestIdBytesMax = 128;

uint64_t RandomSeed() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

bool IsRequestId(std::string_view id) {
  return !id.empty() && id.size() <= kRequestIdBytesMax && std::ranges::all_of(id, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

// "00-<32 hex>-<16 hex>-<2 hex>"; empty when the client's is not one.
std::string TraceparentOf(const HttpRequest& request) {
  const std::string_view value = request.Header("traceparent");
  const bool good = value.size() == 55 && std::ranges::all_of(value, [](char c) {
                      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-';
                    });
  return good ? std::string(value) : std::string();
}

}  // namespace

const std::vector<Api::Route>& Api::Routes() {
  static const std::vector<Route> routes = {
      {"POST", "/v1/chat/completions", false, &Api::OnChat},
      {"POST", "/v1/completions", false, &Api::OnCompletion},
      {"GET", "/v1/models", false, &Api::OnModels},
      {"GET", kModelsPath, false, &Api::OnModel},
      {"GET", "/health", true, &Api::OnReady},
      {"GET", "/live", true, &Api::OnLive},
      {"GET", "/ready", true, &Api::OnReady},
      {"GET", "/version", false, &Api::OnVersion},
      {"POST", "/tokenize", false, &Api::OnTokenize},
      {"POST", "/detokenize", false, &Api::OnDetokenize},
  };
  return routes;
}

Api::Api(ApiOptions options, const TextAssets& assets, RouterPool& routers, GatewayMetrics& metrics,
         const Clock& clock)
    : options_(std::move(options)),
      assets_(assets),
      routers_(routers),
      metrics_(metrics),
      started_s_(std::time(nullptr)),
      random_seed_(RandomSeed()),
      admission_(options_.requests_max),
      generation_context_{.tokenizer = assets.tokenizer,
                          .routers = routers,
                          .metrics = metrics,
                          .clock = clock,
                          .model_name = options_.served_names.front(),
                          .request_timeout = options_.request_timeout} {}

absl::Status Api::ready() const {
  return draining_.load() ? Unavailable("draining") : routers_.ready();
}

std::string Api::NewId(std::string_view prefix) {
  const uint64_t counter = random_counter_.fetch_add(1);
  return fmt::format("{}{:016x}{:08x}", prefix, CounterRandom(random_seed_, 1, counter),
                     CounterRandom(random_seed_, 2, counter) >> 32);
}

void Api::Handle(HttpRequest request, ResponseWriter writer) {
  const std::string_view asked = request.Header("x-request-id");
  std::string request_id = IsRequestId(asked) ? std::string(asked) : NewId("req-");
  std::string_view route = "unknown";
  for (const Route& each : Routes()) {
    if (request.path == each.path ||
        (each.path == kModelsPath && request.path.starts_with(kModelsPath))) {
      route = each.path;
    }
  }
  Dispatch(request, Reply(std::move(writer), metrics_, std::string(route), std::move(request_id)));
}

void Api::Dispatch(const HttpRequest& request, Reply reply) {
  const std::string_view method =
      request.method == "HEAD" ? std::string_view("GET") : std::string_view(request.method);
  const Route* found = nullptr;
  for (const Route& route : Routes()) {
    const bool is_prefix = route.path == kModelsPath && request.path.starts_with(kModelsPath);
    if (request.path == route.path || is_prefix) {
      found = &route;
    }
  }
  std::optional<std::string> tenant = TenantOf(request);
  if (!tenant.has_value() && (found == nullptr || !found->open)) {
    metrics_.CountRejection("unauthorized");
    reply.Error(InvalidApiKey());
  } else if (found == nullptr) {
    reply.Error(RouteNotFound());
  } else if (found->method != method) {
    reply.Error(MethodNotAllowed(),
                {{"Allow", found->method == "GET" ? "GET, HEAD" : std::string(found->method)}});
  } else {
    (this->*found->handler)(request, tenant.value_or(""), std::move(reply));
  }
}

// The key's name; empty when no keys are asked for; nothing when the key is missing or wrong.
std::optional<std::string> Api::TenantOf(const HttpRequest& request) const {
  if (!options_.keys.has_value()) {
    return "";
  }
  constexpr std::string_view kScheme = "bearer ";
  const auto is_authorization = [](const auto& header) { return header.first == "authorization"; };
  if (std::ranges::count_if(request.headers, is_authorization) != 1) {
    return std::nullopt;
  }
  const std::string_view value = request.Header("authorization");
  const bool is_bearer =
      value.size() > kScheme.size() &&
      std::ranges::equal(value.substr(0, kScheme.size()), kScheme, [](char a, char b) {
        return (a >= 'A' && a <= 'Z' ? a + ('a' - 'A') : a) == b;
      });
  return is_bearer ? options_.keys->NameOf(value.substr(kScheme.size())) : std::nullopt;
}

ParseLimits Api::Limits() const {
  ParseLimits limits;
  limits.body_bytes_max = options_.body_bytes_max;
  limits.vocab_size = static_cast<uint32_t>(assets_.tokenizer.vocab_size());
  return limits;
}

PlanContext Api::MakePlanContext() {
  return {.assets = assets_,
          .served_names = options_.served_names,
          .context_tokens_max = routers_.context_tokens_max(),
          .fallback_seed = CounterRandom(random_seed_, 3, random_counter_.fetch_add(1))};
}

bool Api::CanGenerate(Reply& reply) {
  if (draining_.load()) {
    metrics_.CountRejection("draining");
    reply.Error(ServiceUnavailable("draining", "this gateway is going away"));
    return false;
  }
  if (const absl::Status ready = routers_.ready(); !ready.ok()) {
    metrics_.CountRejection("no_router");
    reply.Error(ServiceUnavailable("model_loading", "no router is ready; /ready says why"));
    return false;
  }
  return true;
}

void Api::OnChat(const HttpRequest& request, const std::string& tenant, Reply reply) {
  PlanAndGenerate(request, tenant, ParseChatRequest(request.body, Limits()), PlanChat,
                  std::move(reply));
}

void Api::OnCompletion(const HttpRequest& request, const std::string& tenant, Reply reply) {
  PlanAndGenerate(request, tenant, ParseCompletionRequest(request.body, Limits()), PlanCompletion,
                  std::move(reply));
}

template <typename Parsed, typename Planner>
void Api::PlanAndGenerate(const HttpRequest& request, const std::string& tenant,
                          const ApiResult<Parsed>& parsed, const Planner& planner, Reply reply) {
  if (!parsed.ok()) {
    reply.Error(parsed.error());
    return;
  }
  metrics_.unknown_fields.Add(static_cast<double>(parsed.value().sampling.unknown_field_count));
  if (!CanGenerate(reply)) {
    return;
  }
  ApiResult<GenerationPlan> plan = planner(parsed.value(), MakePlanContext());
  if (!plan.ok()) {
    reply.Error(plan.error());
    return;
  }
  Generate(request, tenant, std::move(plan.value()), std::move(reply));
}

void Api::Generate(const HttpRequest& request, const std::string& tenant, GenerationPlan plan,
                   Reply reply) {
  std::optional<Admission::Ticket> ticket = admission_.TryEnter(plan.choice_count());
  if (!ticket.has_value()) {
    metrics_.CountRejection("queue_full");
    reply.Error(
        RateLimited("queue_full", fmt::format("{} requests are open, of at most {}",
                                              admission_.open_count(), admission_.choices_max())));
    return;
  }
  GenerationIdentity identity{.id = NewId(plan.chat ? "chatcmpl-" : "cmpl-"),
                              .tenant = tenant,
                              .traceparent = TraceparentOf(request),
                              .created_s = std::time(nullptr)};
  std::make_shared<Generation>(generation_context_, std::move(plan), std::move(identity),
                               *std::move(ticket), std::move(reply))
      ->Start();
}

ModelCard Api::CardOf(const std::string& name) const {
  return {.id = name,
          .created_s = started_s_,
          .max_model_len = static_cast<int64_t>(routers_.context_tokens_max())};
}

void Api::OnModels(const HttpRequest& /*request*/, const std::string& /*tenant*/, Reply reply) {
  std::vector<ModelCard> cards;
  for (const std::string& name : options_.served_names) {
    cards.push_back(CardOf(name));
  }
  reply.Json(200, ModelListJson(cards));
}

void Api::OnModel(const HttpRequest& request, const std::string& /*tenant*/, Reply reply) {
  const std::string_view asked = std::string_view(request.path).substr(kModelsPath.size());
  for (const std::string& name : options_.served_names) {
    if (name == asked) {
      reply.Json(200, ModelJson(CardOf(name)));
      return;
    }
  }
  reply.Error(ModelNotFound(options_.served_names.front()));
}

void Api::OnLive(const HttpRequest& /*request*/, const std::string& /*tenant*/, Reply reply) {
  reply.Text(200, "ok\n");
}

void Api::OnReady(const HttpRequest& /*request*/, const std::string& /*tenant*/, Reply reply) {
  const absl::Status status = ready();
  if (status.ok()) {
    reply.Text(200, "ok\n");
  } else {
    reply.Text(503, MessageOf(status) + "\n");
  }
}

void Api::OnVersion(const HttpRequest& /*request*/, const std::string& /*tenant*/, Reply reply) {
  reply.Json(200, fmt::format(R"({{"version":"{}"}})", kVersion));
}

void Api::OnTokenize(const HttpRequest& request, const std::string& /*tenant*/, Reply reply) {
  const auto answer = Tokenize(request.body, Limits(), assets_, routers_.context_tokens_max());
  if (answer.ok()) {
    reply.Json(200, answer.value());
  } else {
    reply.Error(answer.error());
  }
}

void Api::OnDetokenize(const HttpRequest& request, const std::string& /*tenant*/, Reply reply) {
  const auto answer = Detokenize(request.body, assets_, routers_.context_tokens_max());
  if (answer.ok()) {
    reply.Json(200, answer.value());
  } else {
    reply.Error(answer.error());
  }
}

}  // namespace switchyard
