#include "learner/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "common/net/socket.h"
#include "common/wire/frame.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher::learner {
namespace {

using namespace std::chrono_literals;

constexpr Hash128 kRun{1, 2};

// A broker that says Welcome and answers the rest as the test wants. On a thread of its own.
class ScriptedBroker {
 public:
  using Send = std::function<void(const wire::Message&)>;
  using Handler = std::function<void(const wire::Message&, const Send&)>;

  ScriptedBroker(const std::filesystem::path& run, const std::string& name, Handler handler)
      : handler_(std::move(handler)) {
    net::ServerOptions options;
    options.endpoints = {"ipc://" + (net::SocketFolder(run) / name).string()};
    server_ = net::Server::Bind(options).value();
    EXPECT_TRUE(net::WriteRendezvous(run, {server_->endpoints(), "", "", 1, 1}).ok());
    thread_ = std::jthread([this](const std::stop_token& stop) { Serve(stop); });
  }

 private:
  void Serve(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      auto received = server_->Receive(5ms);
      if (!received) continue;
      auto frame = wire::DecodeFrame(std::as_bytes(std::span(received->bytes)));
      ASSERT_TRUE(frame.ok());
      const Send send = [&](const wire::Message& message) {
        wire::Envelope envelope;
        envelope.run_id = kRun;
        envelope.incarnation = incarnation_;
        (void)server_->Send(received->peer, wire::EncodeFrame(envelope, message).value());
      };
      if (std::holds_alternative<wire::Hello>(frame->message)) {
        wire::Welcome welcome;
        welcome.heartbeat_ms = 20;
        send(welcome);
        known_.insert(received->peer);
      } else if (!known_.contains(received->peer)) {
        send(wire::Rejoin{});
      } else if (std::holds_alternative<wire::Heartbeat>(frame->message)) {
        send(wire::HeartbeatAck{});
      } else {
        handler_(frame->message, send);
      }
    }
  }

  Incarnation incarnation_ = NewIncarnation();
  Handler handler_;
  std::set<net::PeerAddress> known_;
  std::unique_ptr<net::Server> server_;
  std::jthread thread_;  // last: uses the members above
};

wire::LeafPart Answer(const wire::FetchLeaf& fetch) {
  wire::LeafPart part;
  part.request = fetch.request;
  part.lineage = fetch.lineage;
  part.step = fetch.step;
  part.leaf = fetch.leaf;
  part.part = fetch.part;
  part.parts = 1;
  part.batch_trajectories = 7;
  part.records = {"step " + std::to_string(fetch.step) + " leaf " + std::to_string(fetch.leaf)};
  return part;
}

// The requests for each leaf, whatever is sent twice.
class Requests {
 public:
  void Add(std::uint32_t leaf, std::uint64_t request) {
    std::lock_guard lock(mutex_);
    seen_[leaf].insert(request);
  }
  std::size_t Count(std::uint32_t leaf) {
    std::lock_guard lock(mutex_);
    return seen_[leaf].size();
  }

 private:
  std::mutex mutex_;
  std::map<std::uint32_t, std::set<std::uint64_t>> seen_;
};

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(net::SocketFolder(run_));
    std::filesystem::permissions(net::SocketFolder(run_), std::filesystem::perms::owner_all);
  }
  void TearDown() override {
    session_.reset();
    net::RemoveSocketFolder(run_);
  }

  // silence: after which the connection is taken for dead.
  Session& Join(std::chrono::milliseconds silence = 20s) {
    Session::Options options;
    options.link.run_folder = run_.string();
    options.link.role = wire::PeerRole::kLearner;
    options.link.run_id = kRun;
    options.link.incarnation = NewIncarnation();
    options.link.silence = silence;
    options.link.patience = 60s;
    options.hello.role = wire::PeerRole::kLearner;
    session_ = std::make_unique<Session>(options);
    EXPECT_TRUE(session_->Join().ok());
    return *session_;
  }

  static void ExpectLeaf(Session& session, std::uint32_t step, std::uint32_t leaf) {
    auto bytes = session.Fetch(0, step, leaf);
    ASSERT_TRUE(bytes.ok()) << bytes.status().ToString();
    ASSERT_EQ(bytes->records.size(), 1u);
    EXPECT_EQ(bytes->records[0], "step " + std::to_string(step) + " leaf " + std::to_string(leaf));
  }

  TempFolder folder_;
  const std::filesystem::path run_ = folder_.path();
  std::unique_ptr<Session> session_;
};

TEST_F(SessionTest, ALeafThatCameEarlyIsAskedForOnce) {
  Requests asked;
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    if (const auto* fetch = std::get_if<wire::FetchLeaf>(&message)) {
      asked.Add(fetch->leaf, fetch->request);
      send(Answer(*fetch));
    } else if (const auto* done = std::get_if<wire::StepDone>(&message)) {
      send(wire::StepAck{done->step});
    }
  });
  Session& session = Join();
  ASSERT_TRUE(session.Prefetch(0, 5, 2, 3).ok());
  // Their answers come while another answer is waited for.
  wire::StepDone done;
  done.step = 4;
  ASSERT_TRUE(session.PostCommit(done).ok());
  ASSERT_TRUE(session.AwaitCommit().ok());
  ASSERT_TRUE(session.Prefetch(0, 5, 2, 3).ok());  // asked for already
  for (std::uint32_t leaf : {4u, 2u, 3u}) ExpectLeaf(session, 5, leaf);
  for (std::uint32_t leaf : {4u, 2u, 3u}) EXPECT_EQ(asked.Count(leaf), 1u);
  ExpectLeaf(session, 5, 2);  // a second time: it is asked for anew
  EXPECT_EQ(asked.Count(2), 2u);
}

TEST_F(SessionTest, AWindowThatMovesOnAsksForEachLeafOnce) {
  Requests asked;
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    const auto* fetch = std::get_if<wire::FetchLeaf>(&message);
    if (fetch == nullptr) return;
    asked.Add(fetch->leaf, fetch->request);
    send(Answer(*fetch));
  });
  Session& session = Join();
  constexpr std::uint32_t kLeaves = 40, kWindow = 3;
  for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) {
    ASSERT_TRUE(session.Prefetch(0, 1, leaf, std::min(kWindow, kLeaves - leaf)).ok());
    ExpectLeaf(session, 1, leaf);
  }
  for (std::uint32_t leaf = 0; leaf < kLeaves; ++leaf) EXPECT_EQ(asked.Count(leaf), 1u) << leaf;
}

TEST_F(SessionTest, ALeafThatIsNotReadyIsAskedForAgain) {
  Requests asked;
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    const auto* fetch = std::get_if<wire::FetchLeaf>(&message);
    if (fetch == nullptr) return;
    asked.Add(fetch->leaf, fetch->request);
    if (asked.Count(fetch->leaf) < 3) {
      send(wire::NotReady{fetch->request});
    } else {
      send(Answer(*fetch));
    }
  });
  Session& session = Join();
  ASSERT_TRUE(session.Prefetch(0, 1, 0, 2).ok());
  ExpectLeaf(session, 1, 0);
  ExpectLeaf(session, 1, 1);
  for (std::uint32_t leaf : {0u, 1u}) EXPECT_EQ(asked.Count(leaf), 3u);
}

TEST_F(SessionTest, LeavesOfAnotherStepDoNotStandForThoseOfThisOne) {
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    if (const auto* fetch = std::get_if<wire::FetchLeaf>(&message)) send(Answer(*fetch));
  });
  Session& session = Join();
  ASSERT_TRUE(session.Prefetch(0, 1, 0, 2).ok());
  ExpectLeaf(session, 2, 0);
  ASSERT_TRUE(session.Prefetch(0, 3, 0, 2).ok());
  ExpectLeaf(session, 3, 1);
  ExpectLeaf(session, 1, 0);
}

TEST_F(SessionTest, ACommitIsAwaitedBeforeTheNextOneIsReported) {
  std::atomic<bool> silent = true;
  std::mutex mutex;
  std::vector<std::uint32_t> order;  // of reports, without repetitions
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    if (const auto* done = std::get_if<wire::StepDone>(&message)) {
      std::lock_guard lock(mutex);
      if (order.empty() || order.back() != done->step) order.push_back(done->step);
      if (!silent) send(wire::StepAck{done->step});
    } else if (const auto* fetch = std::get_if<wire::FetchLeaf>(&message)) {
      send(wire::StepAck{8});  // for a call that does not wait for it
      send(Answer(*fetch));
    }
  });
  Session& session = Join();
  wire::StepDone done;
  done.step = 8;
  ASSERT_TRUE(session.PostCommit(done).ok());  // does not wait
  ExpectLeaf(session, 9, 0);
  silent = false;
  done.step = 9;
  ASSERT_TRUE(session.PostCommit(done).ok());  // 8 was acknowledged beside the leaf
  ASSERT_TRUE(session.AwaitCommit().ok());
  ASSERT_TRUE(session.AwaitCommit().ok());  // nothing is left to wait for
  std::lock_guard lock(mutex);
  EXPECT_EQ(order, (std::vector<std::uint32_t>{8, 9}));
}

// Where the next broker listens: elsewhere, or where the dead one did, which finds frames waiting.
class RestartTest : public SessionTest, public testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Place, RestartTest, testing::Values("a", "b"));

TEST_P(RestartTest, WhatARestartedBrokerNeverSawIsSaidAgain) {
  auto deaf = std::make_unique<ScriptedBroker>(run_, "a", [](const auto&, const auto&) {});
  Session& session = Join(300ms);
  wire::StepDone done;
  done.step = 3;
  ASSERT_TRUE(session.PostCommit(done).ok());
  ASSERT_TRUE(session.Prefetch(0, 4, 0, 2).ok());
  std::this_thread::sleep_for(50ms);
  deaf.reset();
  std::atomic<int> reports = 0;
  ScriptedBroker broker(run_, GetParam(), [&](const wire::Message& message, const auto& send) {
    if (const auto* fetch = std::get_if<wire::FetchLeaf>(&message)) {
      send(Answer(*fetch));
    } else if (const auto* again = std::get_if<wire::StepDone>(&message)) {
      ++reports;
      send(wire::StepAck{again->step});
    }
  });
  ExpectLeaf(session, 4, 0);
  ExpectLeaf(session, 4, 1);
  ASSERT_TRUE(session.AwaitCommit().ok());
  EXPECT_GE(reports, 1);
}

TEST_F(SessionTest, AMeetingIsAskedForUntilAllHaveComeOrTheDeadline) {
  std::atomic<bool> complete = false;
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    const auto* meet = std::get_if<wire::RanksMeet>(&message);
    if (meet == nullptr || !complete) return;
    send(wire::RanksMet{"another job", {"x"}});
    send(wire::RanksMet{meet->job, {"zero", meet->hello}});
  });
  Session& session = Join();
  const auto early = session.Meet("job", "one", 100ms);
  EXPECT_EQ(early.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_NE(early.status().message().find("learner ranks of job 'job' came to the broker"),
            std::string::npos);
  complete = true;
  const auto met = session.Meet("job", "one", 20s);
  ASSERT_TRUE(met.ok()) << met.status().ToString();
  EXPECT_EQ(*met, (std::vector<std::string>{"zero", "one"}));
}

TEST_F(SessionTest, AShutdownEndsAFetchAndLeavesTheCommitToBeAwaited) {
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    if (std::holds_alternative<wire::FetchLeaf>(message)) {
      send(wire::Shutdown{});
    } else if (const auto* done = std::get_if<wire::StepDone>(&message)) {
      send(wire::StepAck{done->step});
    }
  });
  Session& session = Join();
  EXPECT_EQ(session.Fetch(0, 1, 0).status().code(), StatusCode::kCancelled);
  wire::StepDone done;
  done.step = 0;
  ASSERT_TRUE(session.PostCommit(done).ok());
  EXPECT_TRUE(session.AwaitCommit().ok());
}

TEST_F(SessionTest, WhoWaitsForTimeToPassHearsAShutdown) {
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    if (std::holds_alternative<wire::CheckpointDone>(message)) {
      send(wire::CheckpointAck{7});
      send(wire::Shutdown{});
    }
  });
  Session& session = Join();
  ASSERT_TRUE(session.HandleUntil(SystemClock().Now() + 10ms).ok());
  EXPECT_EQ(session.shutdown(), nullptr);
  wire::CheckpointDone done;
  done.step = 7;
  ASSERT_TRUE(session.ReportCheckpoint(done).ok());
  for (int i = 0; i < 1000 && session.shutdown() == nullptr; ++i) {
    const TimePoint until = SystemClock().Now() + 10ms;
    ASSERT_TRUE(session.HandleUntil(until).ok());
    EXPECT_GE(SystemClock().Now(), until);
  }
  EXPECT_NE(session.shutdown(), nullptr);
}

// What a rank does meanwhile: it offers others its turn on the GPU.
TEST_F(SessionTest, EveryWaitCallsWhatWasAskedForMeanwhile) {
  std::atomic<int> calls = 0;
  const auto called = [&] {
    for (int i = 0; i < 1000 && calls < 3; ++i) std::this_thread::sleep_for(5ms);
  };
  ScriptedBroker broker(run_, "a", [&](const wire::Message& message, const auto& send) {
    const auto* done = std::get_if<wire::StepDone>(&message);
    if (done == nullptr) return;
    called();
    if (done->step == 0) {
      send(wire::StepAck{0});
    } else {
      send(wire::Shutdown{});
    }
  });
  Session& session = Join();
  session.WhileWaiting([&] { ++calls; });
  wire::StepDone done;
  done.step = 0;
  ASSERT_TRUE(session.PostCommit(done).ok());
  ASSERT_TRUE(session.AwaitCommit().ok());
  EXPECT_GE(calls, 3);
  calls = 0;
  done.step = 1;
  ASSERT_TRUE(session.PostCommit(done).ok());
  ASSERT_TRUE(session.AwaitShutdown().ok());
  EXPECT_GE(calls, 3);
  session.WhileWaiting(nullptr);
}

}  // namespace
}  // namespace thresher::learner
