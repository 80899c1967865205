// What stands in the machine's place on one thread, and only there.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <set>
#include <thread>

#include "common/base/clock.h"
#include "common/base/entropy.h"
#include "common/base/fault.h"
#include "common/base/ids.h"
#include "common/base/process.h"

namespace thresher {
namespace {

class Counting : public EntropySource {
 public:
  std::uint64_t Next() override { return 0x0807060504030201u + next_++; }

 private:
  std::uint64_t next_ = 0;
};

TEST(Substitute, ClockIsThisThreadsAloneAndGoesBack) {
  const Clock* real = &SystemClock();
  ManualClock manual;
  EXPECT_EQ(SubstituteClock(&manual), nullptr);
  EXPECT_EQ(&SystemClock(), &manual);
  std::thread([&] { EXPECT_EQ(&SystemClock(), real); }).join();
  EXPECT_EQ(SubstituteClock(nullptr), &manual);
  EXPECT_EQ(&SystemClock(), real);
}

TEST(Substitute, EntropyNamesWhatIsNew) {
  Counting first, second;
  SubstituteEntropy(&first);
  const Incarnation a = NewIncarnation(), b = NewIncarnation();
  EXPECT_EQ(SubstituteEntropy(&second), &first);
  EXPECT_EQ(NewIncarnation(), a);
  EXPECT_EQ(NewIncarnation(), b);
  SubstituteEntropy(nullptr);
  EXPECT_NE(a, b);
}

TEST(Substitute, EntropyFillsBytesInOrder) {
  Counting source;
  SubstituteEntropy(&source);
  std::array<std::byte, 11> bytes{};
  FillEntropy(bytes);
  SubstituteEntropy(nullptr);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(std::to_integer<std::size_t>(bytes[i]), i + 1);
  EXPECT_EQ(bytes[8], std::byte{2});
  EXPECT_EQ(bytes[10], std::byte{3});
}

TEST(Substitute, SystemsEntropyDoesNotRepeat) {
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(Entropy64());
  EXPECT_EQ(seen.size(), 1000u);
  std::array<std::byte, 64> once{}, again{};
  FillEntropy(once);
  FillEntropy(again);
  EXPECT_NE(once, again);
}

TEST(Substitute, ProcessSaysWhatItIsToldTo) {
  EXPECT_EQ(ThisProcess().pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_FALSE(ThisProcess().host.empty());
  const ProcessName other{7, "moon"};
  SubstituteProcess(&other);
  EXPECT_EQ(ThisProcess().pid, 7u);
  EXPECT_EQ(ThisProcess().host, "moon");
  EXPECT_EQ(SubstituteProcess(nullptr), &other);
}

class Recorder : public FaultObserver {
 public:
  void OnReached(std::string_view process, std::string_view point) override {
    seen.push_back(std::string(process) + ":" + std::string(point));
    if (point == "deadly") throw 1;
  }
  std::vector<std::string> seen;
};

TEST(Substitute, ObserverHearsOfEveryPointAndMayThrow) {
  Recorder recorder;
  FaultPlan plan = *FaultPlan::Parse("broker", "", 0);
  SubstituteFaultObserver(&recorder);
  plan.Reached("before_ack");
  EXPECT_THROW(plan.Reached("deadly"), int);
  EXPECT_EQ(SubstituteFaultObserver(nullptr), &recorder);
  plan.Reached("after_ack");
  EXPECT_EQ(recorder.seen, (std::vector<std::string>{"broker:before_ack", "broker:deadly"}));
}

}  // namespace
}  // namespace thresher
