#include "services/gateway/testing/gateway_fixture.h"

#include <utility>

#include <boost/json/parse.hpp>

namespace switchyard {

GatewayFixture::GatewayFixture() : assets_(*LoadTextAssets("libs/text/testdata")) {}

void GatewayFixture::StartGateway(ApiOptions api, std::vector<std::string> routers,
                                  bool until_ready) {
  if (routers.empty()) {
    routers.push_back(router_.address());
  }
  GatewayOptions options;
  options.common = {.name = "gateway-test", .admin_address = "127.0.0.1:0", .address_file = ""};
  options.router_addresses = std::move(routers);
  options.api = std::move(api);
  options.http.address = "127.0.0.1:0";
  options.http.body_bytes_max = options.api.body_bytes_max;
  gateway_ = std::make_unique<Gateway>(std::move(options), *LoadTextAssets("libs/text/testdata"));
  ASSERT_TRUE(gateway_->Start().ok());
  RawClient client(gateway_->api_address());
  for (int i = 0; until_ready && i < 100'000; ++i) {
    if (client.Fetch("GET", "/ready").status == 200) {
      return;
    }
  }
  EXPECT_FALSE(until_ready) << "the gateway did not become ready";
}

RawClient::Response GatewayFixture::Post(std::string_view path, std::string_view body,
                                         std::string_view headers) {
  return RawClient(gateway_->api_address()).Fetch("POST", path, body, headers);
}

RawClient::Response GatewayFixture::Get(std::string_view path, std::string_view headers) {
  return RawClient(gateway_->api_address()).Fetch("GET", path, {}, headers);
}

std::vector<uint32_t> GatewayFixture::Ids(const std::string& text) const {
  auto ids = assets_.tokenizer.Encode(text, false);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *std::move(ids) : std::vector<uint32_t>();
}

std::string GatewayFixture::PromptText(const v1::GenerateRequest& request) const {
  const std::vector<uint32_t> ids(request.prompt_tokens().begin(), request.prompt_tokens().end());
  return assets_.tokenizer.Decode(ids, false);
}

std::vector<boost::json::value> EventsOf(const std::string& body, bool* done) {
  std::vector<boost::json::value> events;
  *done = false;
  size_t begin = 0;
  while (begin < body.size()) {
    const size_t end = body.find("\n\n", begin);
    EXPECT_NE(end, std::string::npos) << "an event is not whole";
    const std::string event = body.substr(begin, end - begin);
    begin = end == std::string::npos ? body.size() : end + 2;
    EXPECT_FALSE(*done) << "something came after [DONE]";
    if (event == "data: [DONE]") {
      *done = true;
    } else if (event.starts_with("data: ")) {
      events.push_back(JsonOf(event.substr(6)));
    }
  }
  return events;
}

boost::json::value JsonOf(const std::string& body) {
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(body, error);
  EXPECT_FALSE(error) << body;
  return value;
}

}  // namespace switchyard
