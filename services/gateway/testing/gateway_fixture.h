#ifndef SWITCHYARD_SERVICES_GATEWAY_TESTING_GATEWAY_FIXTURE_H_
#define SWITCHYARD_SERVICES_GATEWAY_TESTING_GATEWAY_FIXTURE_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json/value.hpp>
#include <gtest/gtest.h>

#include "libs/http/testing/raw_client.h"
#include "services/gateway/gateway.h"
#include "services/gateway/testing/fake_router.h"

namespace switchyard {

// A gateway with the tokenizer of libs/text/testdata in front of fake routers. One owner: the test.
class GatewayFixture : public testing::Test {
 protected:
  GatewayFixture();

  // `routers` defaults to router_ alone; waits until the gateway is ready when `until_ready`.
  void StartGateway(ApiOptions api = {.served_names = {"test-model", "alias"}},
                    std::vector<std::string> routers = {}, bool until_ready = true);

  RawClient::Response Post(std::string_view path, std::string_view body,
                           std::string_view headers = {});
  RawClient::Response Get(std::string_view path, std::string_view headers = {});

  // Token ids of a text, without special tokens.
  std::vector<uint32_t> Ids(const std::string& text) const;
  // What the tokenizer gives back for the router's prompt.
  std::string PromptText(const v1::GenerateRequest& request) const;

  TextAssets assets_;
  FakeRouter router_;
  std::unique_ptr<Gateway> gateway_;
};

// The data of the events of a stream, without [DONE]; `done` says whether that came last.
std::vector<boost::json::value> EventsOf(const std::string& body, bool* done);

// Parses `body`; null when it is not JSON, with a failure.
boost::json::value JsonOf(const std::string& body);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVICES_GATEWAY_TESTING_GATEWAY_FIXTURE_H_
