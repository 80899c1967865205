// Learner ranks that know nothing of each other but their job's name meet through a broker and talk
// over NCCL. Only the device is not there: fake_nccl, with threads as ranks.
#include <gtest/gtest.h>

#include <fstream>

#include "broker/broker_loop.h"
#include "learner/session.h"
#include "tests/unit/broker/support.h"
#include "tests/unit/comm/fake_group.h"

namespace thresher {
namespace {

using namespace std::chrono_literals;
using comm::testing::FakeNccl;
using comm::testing::HardValues;
using comm::testing::PairwiseSum;
using comm::testing::SameBits;

constexpr std::uint32_t kRanks = 4;

class NcclThroughBroker : public ::testing::Test {
 protected:
  void SetUp() override {
    comm::testing::ResetControls();
    std::ofstream(folder_.path() / "manifest.json")
        << R"({"run_id": ")" << run_id_.ToString() << "\"}";
    broker::BrokerOptions options;
    options.run = folder_.path();
    auto started = broker::BrokerLoop::Start(options, config_, SystemClock());
    ASSERT_TRUE(started.ok()) << started.status().ToString();
    loop_ = std::move(started).value();
    thread_ = std::jthread([this] { (void)loop_->Run(); });
  }
  void TearDown() override {
    loop_->Abandon();
    thread_.join();
    net::RemoveSocketFolder(folder_.path());
    EXPECT_EQ(comm::testing::Controls().misuses, 0);
  }

  std::unique_ptr<learner::Session> Join(std::uint32_t rank) {
    learner::Session::Options options;
    options.link.run_folder = folder_.path().string();
    options.link.role = wire::PeerRole::kLearner;
    options.link.run_id = run_id_;
    options.link.incarnation = NewIncarnation();
    options.hello.role = wire::PeerRole::kLearner;
    options.hello.index = rank;
    options.hello.world = kRanks;
    options.hello.identity.backend = "cpu";
    options.hello.identity.run_seed = config_.run.seed;
    auto session = std::make_unique<learner::Session>(options);
    EXPECT_TRUE(session->Join().ok());
    return session;
  }

  static Result<std::unique_ptr<comm::NcclCommunicator>> Connect(std::uint32_t rank,
                                                                 learner::Session& session) {
    comm::NcclOptions options;
    options.rank = LearnerRank(rank);
    options.size = kRanks;
    options.deadline = 30s;
    options.library = FakeNccl;
    return comm::NcclCommunicator::Make(
        options,
        []() -> Result<std::unique_ptr<comm::DevicePort>> {
          return std::unique_ptr<comm::DevicePort>(std::make_unique<comm::HostPort>());
        },
        [&](const std::string& mine) { return session.Meet("the job", mine, 30s); });
  }

  broker::TemporaryFolder folder_;
  const Config config_ = broker::TinyConfig({"learner.grad_leaves=4"});
  const Hash128 run_id_ = broker::H("the run");
  std::unique_ptr<broker::BrokerLoop> loop_;
  std::jthread thread_;
};

// Twice: the second job has the name of the first, and meets nothing of it.
TEST_F(NcclThroughBroker, RanksMeetAndReduceInTheTreeAndSoDoesTheNextJob) {
  for (int job = 0; job < 2; ++job) {
    std::vector<std::vector<float>> data;
    for (std::uint32_t r = 0; r < kRanks; ++r) data.push_back(HardValues(r, 1000));
    const std::vector<float> expected = PairwiseSum(data);
    std::vector<std::jthread> ranks;
    for (std::uint32_t rank = 0; rank < kRanks; ++rank) {
      ranks.emplace_back([&, rank] {
        const auto session = Join(rank);
        auto made = Connect(rank, *session);
        ASSERT_TRUE(made.ok()) << made.status().ToString();
        const Status status = comm::TreeAllReduce(**made, data[rank], "gradient");
        EXPECT_TRUE(status.ok()) << status.ToString();
      });
    }
    ranks.clear();
    for (const auto& sum : data) EXPECT_TRUE(SameBits(sum, expected)) << "job " << job;
  }
}

}  // namespace
}  // namespace thresher
