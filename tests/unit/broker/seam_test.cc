// What the broker needs of a machine goes through the seams that a simulation fills.
#include <gtest/gtest.h>

#include "broker/broker_loop.h"
#include "broker/journal.h"
#include "common/data/files.h"
#include "tests/support/deaf_transport.h"
#include "tests/support/moved_files.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {
namespace {

class BrokerSeam : public ::testing::Test {
 protected:
  TemporaryFolder folder_;
  MovedFiles files_{folder_.path()};
  const std::filesystem::path disk_ = MovedFiles::kDisk;
};

TEST_F(BrokerSeam, StartsOnAnotherDiskAndNetworkWithoutHttp) {
  net::DeafTransport transport;
  const Config config = TinyConfig();
  const BrokerOptions options{.run = disk_ / "run", .listen = {}, .http = "none"};
  ASSERT_TRUE(CreateDirectories(options.run).ok());
  ASSERT_TRUE(WriteFileAtomic(options.run / "manifest.json",
                              "{\"run_id\": \"" + H("run").ToString() + "\"}")
                  .ok());
  auto loop = BrokerLoop::Start(options, config, SystemClock());
  ASSERT_TRUE(loop.ok()) << loop.status().ToString();
  EXPECT_EQ((*loop)->http_address(), "");
  const std::string endpoint = "ipc://" + (options.run / "sockets" / "broker").string();
  EXPECT_EQ((*loop)->endpoints(), std::vector<std::string>{endpoint});
  EXPECT_EQ(net::ReadRendezvous(options.run)->endpoints, (*loop)->endpoints());
  EXPECT_FALSE(Exists(options.run / "token"));
  EXPECT_TRUE(Exists(options.run / "journal" / "000001.log"));
  EXPECT_TRUE(Exists(options.run / "broker.lock"));
}

class Recorder : public FaultObserver {
 public:
  Recorder() { SubstituteFaultObserver(this); }
  ~Recorder() override { SubstituteFaultObserver(nullptr); }
  void OnReached(std::string_view process, std::string_view point) override {
    EXPECT_EQ(process, "broker");
    seen.emplace_back(point);
  }
  std::vector<std::string> seen;
};

TEST_F(BrokerSeam, DurableCommitPassesEveryPointOfBothLogsTrajectoriesFirst) {
  const Config config = TinyConfig({"journal.mode=durable"});
  FaultPlan faults = *FaultPlan::Parse("broker", "", 0);
  auto journal = Journal::Open(disk_, config.journal, &faults);
  ASSERT_TRUE(journal.ok()) << journal.status().ToString();
  (*journal)->Store({Id(Stream::kTrain, 1), H("content"), "bytes"});
  (*journal)->Record(Accepted(Id(Stream::kTrain, 1)));
  Recorder recorder;
  ASSERT_TRUE((*journal)->Commit().ok());
  EXPECT_EQ(recorder.seen, (std::vector<std::string>{"store_before_write", "store_after_write",
                                                     "store_before_sync", "store_after_sync",
                                                     "journal_before_write", "journal_after_write",
                                                     "journal_before_sync", "journal_after_sync"}));
}

}  // namespace
}  // namespace thresher::broker
