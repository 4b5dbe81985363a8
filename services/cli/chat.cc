#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include "libs/app/environment.h"
#include "libs/base/status.h"
#include "services/cli/arguments.h"
#include "services/cli/commands.h"
#include "services/cli/fleet_view.h"
#include "services/cli/http_client.h"
#include "services/cli/sse_reader.h"
#include "services/cli/state_dir.h"

namespace switchyard {
namespace {

struct ChatOptions {
  std::string url;
  std::string api_key;
  std::string system;
  uint32_t max_tokens = 0;
};

boost::json::object Message(const std::string& role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

// One turn: prints the answer as it comes and appends it to `messages`.
absl::Status Answer(const ChatOptions& options, boost::json::array& messages) {
  boost::json::object request = {{"messages", messages}, {"stream", true}};
  if (options.max_tokens > 0) {
    request["max_tokens"] = options.max_tokens;
  }
  std::string answer;
  SseReader reader([&answer](const std::string& delta) {
    answer += delta;
    std::fwrite(delta.data(), 1, delta.size(), stdout);
    std::fflush(stdout);
  });
  std::string refused;
  const auto reply = HttpPost({.url = options.url + "/v1/chat/completions",
                               .json_body = boost::json::serialize(request),
                               .api_key = options.api_key,
                               .on_piece = [&](std::string_view piece) {
                                 if (refused.size() < 4096) {
                                   refused.append(piece);
                                 }
                                 reader.Feed(piece);
                                 return true;
                               }});
  std::printf("\n");
  SY_RETURN_IF_ERROR(reply.status());
  if (reply->status != 200) {
    return Unavailable("{} {}", reply->status, refused);
  }
  SY_RETURN_IF_ERROR(reader.Finish());
  messages.push_back(Message("assistant", answer));
  return absl::OkStatus();
}

}  // namespace

int RunChat(const std::vector<std::string>& words) {
  Arguments arguments(words, {});
  ChatOptions options{.url = arguments.Text("url", ""),
                      .api_key = arguments.Text("api-key", ""),
                      .system = arguments.Text("system", ""),
                      .max_tokens = arguments.Number("max-tokens", 0, 1, 1 << 20)};
  const StateDir state_dir(arguments.Text("state-dir", DefaultStateDir()));
  if (const absl::Status parsed = arguments.Finish(); !parsed.ok()) {
    return Fail("chat", MessageOf(parsed), kExitUsage);
  }
  if (options.url.empty()) {
    const auto view = ViewFleet(state_dir);
    if (!view.ok() || view->api.empty()) {
      return Fail("chat", "nothing runs here; start it with 'switchyard up', or give --url",
                  kExitFailed);
    }
    options.url = view->api;
  }
  boost::json::array messages;
  if (!options.system.empty()) {
    messages.push_back(Message("system", options.system));
  }
  std::string line;
  while (std::printf("> "), std::fflush(stdout), std::getline(std::cin, line) && !line.empty()) {
    messages.push_back(Message("user", line));
    if (const absl::Status answered = Answer(options, messages); !answered.ok()) {
      return Fail("chat", MessageOf(answered), kExitFailed);
    }
  }
  return kExitOk;
}

}  // namespace switchyard
