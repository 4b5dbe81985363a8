#include "services/cli/http_client.h"

#include <memory>
#include <string>
#include <string_view>

#include <curl/curl.h>

#include "libs/base/status.h"

namespace switchyard {
namespace {

using Handle = std::unique_ptr<CURL, decltype(&curl_easy_cleanup)>;
using HeaderList = std::unique_ptr<curl_slist, decltype(&curl_slist_free_all)>;

struct Receiver {
  HttpReply reply;
  const std::function<bool(std::string_view)>* on_piece = nullptr;
};

size_t Receive(char* data, size_t /*one*/, size_t size, void* context) {
  auto& receiver = *static_cast<Receiver*>(context);
  if (receiver.on_piece != nullptr && *receiver.on_piece) {
    return (*receiver.on_piece)({data, size}) ? size : 0;
  }
  receiver.reply.body.append(data, size);
  return size;
}

absl::StatusOr<HttpReply> Perform(CURL* handle, Receiver& receiver, const std::string& url) {
  curl_easy_setopt(handle, CURLOPT_URL, url.c_str());
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_PROXY, "");
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &Receive);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &receiver);
  const CURLcode result = curl_easy_perform(handle);
  if (result != CURLE_OK && result != CURLE_WRITE_ERROR) {
    return Unavailable("{}: {}", url, curl_easy_strerror(result));
  }
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &receiver.reply.status);
  return receiver.reply;
}

}  // namespace

absl::StatusOr<HttpReply> HttpGet(const std::string& url, long timeout_ms) {
  const Handle handle(curl_easy_init(), &curl_easy_cleanup);
  Receiver receiver;
  curl_easy_setopt(handle.get(), CURLOPT_TIMEOUT_MS, timeout_ms);
  return Perform(handle.get(), receiver, url);
}

absl::StatusOr<HttpReply> HttpPost(const HttpPostOptions& options) {
  const Handle handle(curl_easy_init(), &curl_easy_cleanup);
  curl_slist* list = curl_slist_append(nullptr, "Content-Type: application/json");
  if (!options.api_key.empty()) {
    list = curl_slist_append(list, ("Authorization: Bearer " + options.api_key).c_str());
  }
  const HeaderList headers(list, &curl_slist_free_all);
  Receiver receiver{.on_piece = &options.on_piece};
  curl_easy_setopt(handle.get(), CURLOPT_HTTPHEADER, headers.get());
  curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDS, options.json_body.c_str());
  curl_easy_setopt(handle.get(), CURLOPT_POSTFIELDSIZE_LARGE,
                   static_cast<curl_off_t>(options.json_body.size()));
  return Perform(handle.get(), receiver, options.url);
}

}  // namespace switchyard
