#include "libs/rpc/bounded_writer.h"

#include <vector>

#include "gtest/gtest.h"

namespace switchyard {
namespace {

struct Stream {
  std::vector<int> started;
  std::vector<grpc::StatusCode> finished;
  BoundedWriter<int> writer{
      2, [this](const int* message) { started.push_back(*message); },
      [this](const grpc::Status& status) { finished.push_back(status.error_code()); }};
};

TEST(BoundedWriter, WritesOneAtATimeAndRefusesWhenFull) {
  Stream stream;
  EXPECT_TRUE(stream.writer.Push(1));
  EXPECT_TRUE(stream.writer.Push(2));
  EXPECT_FALSE(stream.writer.Push(3));
  EXPECT_EQ(stream.started, std::vector<int>({1}));
  stream.writer.OnWriteDone(true);
  EXPECT_EQ(stream.started, std::vector<int>({1, 2}));
}

TEST(BoundedWriter, FinishesOnceAfterWhatIsQueued) {
  Stream stream;
  ASSERT_TRUE(stream.writer.Push(1));
  stream.writer.FinishAfterQueued(grpc::Status::OK);
  stream.writer.FinishAfterQueued(grpc::Status(grpc::StatusCode::INTERNAL, "late"));
  EXPECT_FALSE(stream.writer.Push(2));
  EXPECT_TRUE(stream.finished.empty());
  stream.writer.OnWriteDone(true);
  EXPECT_EQ(stream.finished, std::vector<grpc::StatusCode>({grpc::StatusCode::OK}));
}

TEST(BoundedWriter, FinishNowDropsWhatWaitsButNotTheWriteInProgress) {
  Stream stream;
  ASSERT_TRUE(stream.writer.Push(1));
  ASSERT_TRUE(stream.writer.Push(2));
  stream.writer.FinishNow(grpc::Status::CANCELLED);
  EXPECT_TRUE(stream.finished.empty());
  stream.writer.OnWriteDone(false);
  EXPECT_EQ(stream.started, std::vector<int>({1}));
  EXPECT_EQ(stream.finished, std::vector<grpc::StatusCode>({grpc::StatusCode::CANCELLED}));
}

}  // namespace
}  // namespace switchyard
