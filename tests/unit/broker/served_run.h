#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "broker/broker_loop.h"
#include "common/data/files.h"
#include "tests/unit/broker/support.h"

namespace thresher::broker {

// A run directory and its broker, on ipc and on tcp, serving on a thread of its own.
class ServedRun {
 public:
  explicit ServedRun(std::vector<std::string> overrides = {}, const Clock& clock = SystemClock()) {
    overrides.push_back("net.listen=tcp://127.0.0.1:0");
    config_ = TinyConfig(overrides);
    std::ofstream(run() / "manifest.json") << R"({"run_id": ")" << run_id().ToString() << "\"}";
    BrokerOptions options;
    options.run = run();
    Start(options, clock);
  }
  ~ServedRun() {
    Kill();
    net::RemoveSocketFolder(run());
  }
  // The broker dies, and another one starts.
  void Restart(const Clock& clock = SystemClock()) {
    Restart([] {}, clock);
  }
  template <typename Between>
  void Restart(Between&& between, const Clock& clock = SystemClock()) {
    Kill();
    between();
    BrokerOptions options;
    options.run = run();
    Start(options, clock);
  }

  const std::filesystem::path& run() const { return folder_.path(); }
  Hash128 run_id() const { return H("the run"); }
  const Config& config() const { return config_; }
  const std::string& ipc() const { return loop_->endpoints().at(0); }
  const std::string& tcp() const { return loop_->endpoints().at(1); }
  net::KeyRing Keys() const { return net::LoadOrCreateKeys(run() / "keys").value(); }

  nlohmann::json Status() const {
    auto token = net::LoadOrCreateToken(run().string());
    auto text = net::HttpGet(loop_->http_address(), "/status.json", *token, 2000);
    return text.ok() ? nlohmann::json::parse(*text) : nlohmann::json::object();
  }
  // A counter or gauge as status.json shows it; 0 when it has never counted.
  double Number(const std::string& part, const std::string& name) const {
    const nlohmann::json status = Status();
    return status.value(part, nlohmann::json::object()).value(name, 0.0);
  }
  // Waits until status.json shows at least `number`.
  void ExpectCount(const std::string& part, const std::string& name, double number) const {
    EXPECT_TRUE(Until([&] { return Number(part, name) >= number; }))
        << name << " is " << Number(part, name) << " in\n"
        << Status().value(part, nlohmann::json()).dump();
  }
  std::string Events() const { return ReadFile(run() / "events.jsonl").value(); }

  template <typename Condition>
  static bool Until(Condition&& condition,
                    std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    auto deadline = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }

 private:
  void Start(const BrokerOptions& options, const Clock& clock) {
    loop_ = BrokerLoop::Start(options, config_, clock).value();
    thread_ = std::jthread([this] { (void)loop_->Run(); });
  }
  void Kill() {
    loop_->Abandon();
    thread_.join();
    loop_.reset();
  }

  TemporaryFolder folder_;
  Config config_;
  std::unique_ptr<BrokerLoop> loop_;
  std::jthread thread_;
};

}  // namespace thresher::broker
