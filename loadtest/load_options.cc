#include "loadtest/load_options.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "libs/base/status.h"
#include "services/cli/arguments.h"

namespace switchyard {
namespace {

constexpr double kSecondsMax = 7 * 86'400.0;
constexpr uint32_t kRequestsMax = 10'000'000;
constexpr uint32_t kRequestsByDefault = 100;

// OptionReader reads options of more kinds than Arguments knows and keeps the first error.
class OptionReader {
 public:
  explicit OptionReader(const std::vector<std::string>& words)
      : arguments_(words, {"all-at-once", "allow-remote", "new-connections", "no-ignore-eos",
                           "detailed", "quiet"}) {}

  Arguments& plain() { return arguments_; }

  bool Has(const std::string& name) { return !arguments_.Texts(name).empty(); }

  double Real(const std::string& name, double fallback, double min, double max) {
    const std::string text = arguments_.Text(name, "");
    if (!Has(name)) {
      return fallback;
    }
    double value = 0.0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() ||
        !(value >= min && value <= max)) {
      Fail(InvalidArgument("--{} {}: not a number in [{}, {}]", name, text, min, max));
      return fallback;
    }
    return value;
  }

  // The value of `name` as `parse` reads it; `fallback` when it is not given.
  template <typename T, typename Parse>
  T Parsed(const std::string& name, T fallback, const Parse& parse) {
    if (!Has(name)) {
      return fallback;
    }
    absl::StatusOr<T> value = parse(arguments_.Text(name, ""));
    if (!value.ok()) {
      Fail(Annotate(value.status(), fmt::format("--{}", name)));
      return fallback;
    }
    return *std::move(value);
  }

  void Fail(absl::Status status) {
    if (status_.ok()) {
      status_ = std::move(status);
    }
  }

  absl::Status Finish() {
    SY_RETURN_IF_ERROR(status_);
    return arguments_.Finish();
  }

 private:
  Arguments arguments_;
  absl::Status status_;
};

absl::StatusOr<std::vector<double>> ParsePercentiles(std::string_view text) {
  std::vector<double> percentiles;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    double value = 0.0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() ||
        !(value >= 0.0 && value <= 100.0)) {
      return InvalidArgument("'{}' is not a number in [0, 100]", part);
    }
    percentiles.push_back(value);
    if (comma == std::string_view::npos) {
      return percentiles;
    }
    text.remove_prefix(comma + 1);
  }
}

absl::StatusOr<std::string> CheckHeader(const std::string& header) {
  const size_t colon = header.find(':');
  const bool printable =
      std::all_of(header.begin(), header.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
  const bool named =
      colon != std::string::npos && colon > 0 &&
      std::all_of(header.begin(), header.begin() + static_cast<ptrdiff_t>(colon), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '-' || c == '_';
      });
  if (!printable || !named) {
    return InvalidArgument("a header is \"Name: value\" in printable ASCII");
  }
  return header;
}

void ReadTarget(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  options->url_text = plain.Text("url", "");
  if (options->url_text.empty()) {
    reader.Fail(InvalidArgument("--url is required"));
  }
  options->url = reader.Parsed<TargetUrl>("url", {}, ParseTargetUrl);
  const std::string endpoint = plain.Text("endpoint", "completions");
  if (endpoint == "chat") {
    options->body.endpoint = Endpoint::kChat;
  } else if (endpoint != "completions") {
    reader.Fail(InvalidArgument("--endpoint {}: not completions or chat", endpoint));
  }
  const bool has_version = options->url.path.ends_with("/v1");
  const std::string route = endpoint == "chat" ? "/chat/completions" : "/completions";
  options->path = plain.Text("path", options->url.path + (has_version ? "" : "/v1") + route);
  if (!options->path.starts_with('/') ||
      std::any_of(options->path.begin(), options->path.end(),
                  [](char c) { return c <= 0x20 || c > 0x7e; })) {
    reader.Fail(InvalidArgument("--path must begin with / and hold no spaces"));
  }
  for (const std::string& header : plain.Texts("header")) {
    const absl::StatusOr<std::string> checked = CheckHeader(header);
    if (checked.ok()) {
      options->headers.push_back(*checked);
    } else {
      reader.Fail(Annotate(checked.status(), "--header"));
    }
  }
  options->allow_remote = plain.Flag("allow-remote");
  options->keep_alive = !plain.Flag("new-connections");
}

void ReadArrival(OptionReader& reader, LoadOptions* options) {
  const std::string arrival = reader.plain().Text("arrival", "poisson");
  if (arrival == "constant") {
    options->arrival.kind = ArrivalKind::kConstant;
  } else if (arrival == "burst") {
    options->arrival.kind = ArrivalKind::kBurst;
  } else if (arrival != "poisson") {
    reader.Fail(InvalidArgument("--arrival {}: not poisson, constant or burst", arrival));
  }
  if (reader.Has("burstiness") && arrival != "burst") {
    reader.Fail(InvalidArgument("--burstiness is for --arrival burst"));
  }
  options->arrival.rate_per_s = reader.Real("rate", 1.0, 1e-6, 1e6);
  options->arrival.burstiness =
      reader.Real("burstiness", arrival == "burst" ? 0.5 : 1.0, 0.01, 1000.0);
}

// Which of the three kinds of load it is, by the option that only that kind has.
void ReadLoad(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  options->trace_file = plain.Text("trace", "");
  options->trace.speed = reader.Real("trace-speed", 1.0, 1e-3, 1e6);
  options->trace.block_tokens = plain.Number("trace-block-tokens", 512, 1, 1 << 16);
  const int kinds =
      (reader.Has("rate") ? 1 : 0) + (reader.Has("users") ? 1 : 0) + (reader.Has("trace") ? 1 : 0);
  if (kinds != 1) {
    reader.Fail(InvalidArgument("give exactly one of --rate, --users and --trace"));
  }
  if (reader.Has("users")) {
    options->kind = LoadKind::kUsers;
  } else if (reader.Has("trace")) {
    options->kind = LoadKind::kTrace;
  }
  ReadArrival(reader, options);
  if (reader.Has("arrival") && options->kind != LoadKind::kOpenLoop) {
    reader.Fail(InvalidArgument("--arrival is for --rate"));
  }
  const bool only_for_users =
      reader.Has("requests-per-user") || reader.Has("ramp") || plain.Flag("all-at-once");
  if (only_for_users && options->kind != LoadKind::kUsers) {
    reader.Fail(InvalidArgument("--all-at-once, --requests-per-user and --ramp are for --users"));
  }
  options->users.users = plain.Number("users", 1, 1, 1'000'000);
  options->users.ramp_s = reader.Real("ramp", 0.0, 0.0, kSecondsMax);
  if (plain.Flag("all-at-once") && reader.Has("ramp")) {
    reader.Fail(InvalidArgument("--all-at-once and --ramp exclude each other"));
  }
}

void ReadBounds(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  options->duration_s = reader.Real("duration", 0.0, 1e-3, kSecondsMax);
  options->timeout_s = reader.Real("timeout", 600.0, 1e-3, kSecondsMax);
  const double enough = std::max(3600.0, options->duration_s + options->timeout_s);
  options->limit_s = reader.Real("limit", enough, 1e-3, 2 * kSecondsMax);
  const uint32_t bounded = options->duration_s > 0.0 ? kRequestsMax : kRequestsByDefault;
  if (options->kind == LoadKind::kUsers) {
    if (reader.Has("requests")) {
      reader.Fail(InvalidArgument("--requests is not for --users; give --requests-per-user"));
    }
    const uint32_t each_max = std::max<uint32_t>(1, kRequestsMax / options->users.users);
    const uint32_t each = options->duration_s > 0.0 ? each_max : 1;
    options->users.requests_per_user = plain.Number("requests-per-user", each, 1, each_max);
  }
  const uint32_t fallback = options->kind == LoadKind::kTrace ? kRequestsMax : bounded;
  options->requests_max = plain.Number("requests", fallback, 1, kRequestsMax);
  options->warmup = plain.Number("warmup", 0, 0, 1000);
}

void ReadShape(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  ShapeOptions& shape = options->shape;
  shape.prompt_tokens =
      reader.Parsed("prompt-tokens", LengthDistribution(128), LengthDistribution::Parse);
  shape.output_tokens =
      reader.Parsed("output-tokens", LengthDistribution(64), LengthDistribution::Parse);
  shape.shared_prefix_tokens =
      plain.Number("shared-prefix-tokens", 0, 0, LengthDistribution::kTokensMax);
  shape.prefix_groups = plain.Number("prefix-groups", 1, 1, 1'000'000);
  shape.seed = plain.Number("seed", 1, 0, std::numeric_limits<uint32_t>::max());
  options->trace.seed = shape.seed;
  for (const char* name :
       {"prompt-tokens", "output-tokens", "shared-prefix-tokens", "prefix-groups"}) {
    if (options->kind == LoadKind::kTrace && reader.Has(name)) {
      reader.Fail(InvalidArgument("--{} has no meaning with --trace", name));
    }
  }
}

void ReadBody(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  BodyOptions& body = options->body;
  body.model = plain.Text("model", "");
  const bool chat = body.endpoint == Endpoint::kChat;
  const std::string form = plain.Text("prompt-form", chat ? "text" : "ids");
  body.prompt_form = form == "ids" ? PromptForm::kTokenIds : PromptForm::kWords;
  if (form != "ids" && form != "text") {
    reader.Fail(InvalidArgument("--prompt-form {}: not ids or text", form));
  }
  if (chat && form == "ids") {
    reader.Fail(InvalidArgument("--prompt-form ids: chat takes text only"));
  }
  body.vocab_size = plain.Number("vocab-size", 4096, 2, 1 << 24);
  body.temperature = reader.Real("temperature", 1.0, 0.0, 100.0);
  body.ignore_eos = !plain.Flag("no-ignore-eos");
  body.extra = reader.Parsed<ExtraMembers>("extra-body", {}, ExtraMembers::Parse);
}

void ReadTenants(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  options->api_keys = plain.Texts("api-key");
  for (const std::string& key : options->api_keys) {
    if (key.empty() ||
        std::any_of(key.begin(), key.end(), [](char c) { return c < 0x21 || c > 0x7e; })) {
      reader.Fail(InvalidArgument("--api-key must be printable ASCII without spaces"));
    }
  }
  const std::string tenants = plain.Text("tenants", "");
  const bool is_count = !tenants.empty() && std::all_of(tenants.begin(), tenants.end(), [](char c) {
    return c >= '0' && c <= '9';
  });
  if (tenants.empty()) {
    options->tenant_count = static_cast<uint32_t>(std::max<size_t>(1, options->api_keys.size()));
  } else if (is_count) {
    options->tenant_count = plain.Number("tenants", 1, 1, kTenantsMax);
  } else {
    options->tenants_file = tenants;
    if (!options->api_keys.empty()) {
      reader.Fail(InvalidArgument("--api-key with --tenants FILE: keys come from the file"));
    }
  }
}

void ReadOutput(OptionReader& reader, LoadOptions* options) {
  Arguments& plain = reader.plain();
  options->slo = reader.Parsed<std::vector<SloBound>>("slo", {}, ParseSlo);
  options->percentiles =
      reader.Parsed<std::vector<double>>("percentiles", {50.0, 90.0, 95.0, 99.0}, ParsePercentiles);
  options->json_file = plain.Text("json", "");
  options->plot_dir = plain.Text("plot", "");
  options->detailed = plain.Flag("detailed");
  options->quiet = plain.Flag("quiet");
}

}  // namespace

absl::StatusOr<LoadOptions> ParseLoadOptions(const std::vector<std::string>& words) {
  OptionReader reader(words);
  LoadOptions options;
  ReadTarget(reader, &options);
  ReadLoad(reader, &options);
  ReadBounds(reader, &options);
  ReadShape(reader, &options);
  ReadBody(reader, &options);
  ReadTenants(reader, &options);
  ReadOutput(reader, &options);
  SY_RETURN_IF_ERROR(reader.Finish());
  return options;
}

std::string LoadInWords(const LoadOptions& options) {
  const std::string bound =
      options.duration_s > 0.0 ? fmt::format(" for {} s", options.duration_s) : "";
  switch (options.kind) {
    case LoadKind::kUsers: {
      const std::string begin = options.users.ramp_s > 0.0
                                    ? fmt::format("begun over {} s", options.users.ramp_s)
                                    : "at once";
      return options.duration_s > 0.0
                 ? fmt::format("closed loop, {} users {}{}", options.users.users, begin, bound)
                 : fmt::format("closed loop, {} users {}, {} each", options.users.users, begin,
                               options.users.requests_per_user == 1
                                   ? "1 request"
                                   : fmt::format("{} requests", options.users.requests_per_user));
    }
    case LoadKind::kTrace:
      return fmt::format("trace replay at {} x speed{}", options.trace.speed, bound);
    case LoadKind::kOpenLoop:
      break;
  }
  const char* shape = options.arrival.kind == ArrivalKind::kConstant  ? "even"
                      : options.arrival.kind == ArrivalKind::kPoisson ? "Poisson"
                                                                      : "bursty";
  return fmt::format("open loop, {} arrivals at {}/s{}", shape, options.arrival.rate_per_s, bound);
}

const char kLoadtestHelp[] =
    R"(switchyard-loadtest --url URL (--rate R | --users N | --trace FILE) [options]

Sends completions to an OpenAI-style server, reads the streams, reports latency and throughput.

Target
  --url URL             http://host:port[/path]; /v1/completions is added
  --endpoint E          completions or chat (completions)
  --path PATH           another request path, as it is
  --model NAME          `model` of the requests
  --api-key KEY         sent as a bearer token; given again, one tenant per key
  --header "N: V"       one more header; may be given again
  --allow-remote        targets that are not loopback are refused without it
  --new-connections     one connection per request, no reuse

Load: one of
  --rate R              open loop: R requests a second arrive, whatever becomes of the earlier ones
    --arrival A         poisson, constant or burst (poisson)
    --burstiness B      shape of the gamma-distributed gaps of burst; below 1 is bursty (0.5)
  --users N             closed loop: N users, each sends its next request when the last one ended
    --requests-per-user K   (1, or no bound with --duration)
    --all-at-once       all users begin at once; the default
    --ramp S            they begin evenly over S seconds instead
  --trace FILE          replay; the format is in loadtest/README.md
    --trace-speed X     times are divided by X (1)
    --trace-block-tokens N  tokens per entry of hash_ids (512)

Bounds
  --requests N          at most N requests (100; all of a trace; no bound with --duration)
  --duration S          no request begins later
  --timeout S           of one request (600)
  --limit S             of the whole run; what is open then is cut off (3600, or what
                        duration and timeout need)
  --warmup N            requests sent before and not reported (0)

Requests
  --prompt-tokens D     lengths (128): N, fixed:N, uniform:A:B, normal:MEAN:DEV[:MIN:MAX],
                        lognormal:MU:SIGMA[:MIN:MAX], exponential:MEAN[:MIN:MAX]
  --output-tokens D     the same (64); made exact by `ignore_eos`
  --no-ignore-eos       let the model end earlier
  --shared-prefix-tokens N  so many tokens before the prompt are shared (0) ...
  --prefix-groups G     ... by the requests of one of G groups (1)
  --prompt-form F       ids (arrays of token ids) or text (ids; chat: text)
  --vocab-size N        ids are below N (4096)
  --temperature T       (1)
  --extra-body JSON     members that are added to each request or replace ours; null removes
  --tenants N|FILE      N tenants, or JSONL of name, api_key, weight (1)
  --seed N              same seed, same load (1)

Output
  --json FILE|-         the figures as JSON; - prints them and moves the table to stderr
  --detailed            one entry per request in the JSON
  --plot DIR            ttft_cdf.svg, itl_cdf.svg, throughput.svg
  --slo LIST            bounds in ms for goodput, like ttft:500,itl:100 (ttft, tpot, itl, e2el)
  --percentiles LIST    (50,90,95,99)
  --quiet               no progress lines on stderr

Exit codes: 0 every request completed; 1 some did not, or the run could not be made or written;
2 wrong usage. SIGINT and SIGTERM end the run and print what it has.
)";

}  // namespace switchyard
