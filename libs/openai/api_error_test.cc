#include "libs/openai/api_error.h"

#include "gtest/gtest.h"

#include "libs/base/status.h"

namespace switchyard {
namespace {

TEST(ErrorJson, WritesOpenAisShape) {
  EXPECT_EQ(ErrorJson(InvalidValue("top_p", "top_p must be greater than 0")),
            R"({"error":{"message":"top_p must be greater than 0","type":"invalid_request_error",)"
            R"("param":"top_p","code":"invalid_value"}})");
  EXPECT_EQ(ErrorJson(ServiceUnavailable("draining", "going away")),
            R"({"error":{"message":"going away","type":"service_unavailable_error","param":null,)"
            R"("code":"draining"}})");
}

TEST(ApiErrorFromStatus, MapsEachCode) {
  const auto status_of = [](const absl::Status& status) {
    return ApiErrorFromStatus(status).http_status;
  };
  EXPECT_EQ(status_of(InvalidArgument("x")), 400);
  EXPECT_EQ(status_of(absl::UnauthenticatedError("x")), 401);
  EXPECT_EQ(status_of(absl::PermissionDeniedError("x")), 403);
  EXPECT_EQ(status_of(NotFound("x")), 404);
  EXPECT_EQ(status_of(ResourceExhausted("x")), 429);
  EXPECT_EQ(status_of(Unavailable("x")), 503);
  EXPECT_EQ(status_of(DeadlineExceeded("x")), 504);
  EXPECT_EQ(status_of(Internal("x")), 500);
  EXPECT_EQ(status_of(DataLoss("x")), 500);
}

TEST(ApiErrorFromStatus, KeepsInternalsToItself) {
  EXPECT_EQ(ApiErrorFromStatus(Internal("shard 3 at 10.0.0.1")).message, "internal error");
  EXPECT_EQ(ApiErrorFromStatus(Unavailable("queue of {}", 3)).message, "queue of 3");
}

TEST(ApiErrors, HaveTheStatusesClientsKnow) {
  EXPECT_EQ(InvalidApiKey().http_status, 401);
  EXPECT_EQ(ModelNotFound("a, b").code, "model_not_found");
  EXPECT_EQ(RequestTooLarge(10).http_status, 413);
  EXPECT_EQ(RateLimited("queue_full", "x").http_status, 429);
  EXPECT_EQ(ContextLengthExceeded("x").code, "context_length_exceeded");
  EXPECT_EQ(MethodNotAllowed().http_status, 405);
  EXPECT_EQ(RouteNotFound().http_status, 404);
}

}  // namespace
}  // namespace switchyard
