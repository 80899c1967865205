#include "broker/ledger.h"

#include <gtest/gtest.h>

#include <random>

namespace thresher::broker {
namespace {

using wire::DropReason;

HeldCounts Held(std::uint64_t issued, std::uint64_t accepted, std::uint64_t batched) {
  return {issued, accepted, batched};
}

TEST(Ledger, BalancesThroughALifeOfSamples) {
  Ledger ledger;
  ledger.Issue(Stream::kTrain, 0, 10);
  EXPECT_TRUE(ledger.Check({{{Stream::kTrain, 0}, Held(10, 0, 0)}}).ok());
  ASSERT_TRUE(ledger.Accept(Stream::kTrain, 0, 8).ok());
  ASSERT_TRUE(ledger.Drop(Stream::kTrain, 0, Place::kIssued, DropReason::kDeadline, 2).ok());
  ASSERT_TRUE(ledger.Drop(Stream::kTrain, 0, Place::kAccepted, DropReason::kZeroVariance, 3).ok());
  ASSERT_TRUE(ledger.Batch(Stream::kTrain, 0, 5).ok());
  ASSERT_TRUE(ledger.Train(Stream::kTrain, 0, 4).ok());
  EXPECT_TRUE(ledger.Check({{{Stream::kTrain, 0}, Held(0, 0, 1)}}).ok());
  EXPECT_EQ(
      Ledger::Equation(ledger.Total()),
      "issued 10 = trained 4 + evaluated 0 + dropped 5 (zero_variance 3, deadline 2) + held 1");
}

TEST(Ledger, RefusesToMoveWhatIsNotThere) {
  Ledger ledger;
  ledger.Issue(Stream::kEval, 0, 2);
  Ledger before = ledger;
  EXPECT_EQ(ledger.Accept(Stream::kEval, 0, 3).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ledger.Evaluate(Stream::kEval, 0, 1).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(ledger, before);
}

TEST(Ledger, ReportsSamplesThatVanishOrAppear) {
  Ledger ledger;
  ledger.Issue(Stream::kTrain, 0, 4);
  Status lost = ledger.Check({{{Stream::kTrain, 0}, Held(3, 0, 0)}});
  EXPECT_EQ(lost.code(), StatusCode::kInternal);
  EXPECT_NE(lost.message().find("issued booked 4, found 3"), std::string::npos) << lost.message();
  EXPECT_FALSE(ledger.Check({}).ok());
  EXPECT_FALSE(
      ledger.Check({{{Stream::kTrain, 0}, Held(4, 0, 0)}, {{Stream::kUser, 0}, Held(1, 0, 0)}})
          .ok());
}

TEST(Ledger, KeepsIslandsAndStreamsApart) {
  Ledger ledger;
  ledger.Issue(Stream::kTrain, 0, 1);
  ledger.Issue(Stream::kTrain, 1, 2);
  EXPECT_FALSE(ledger.Accept(Stream::kTrain, 0, 2).ok());
  EXPECT_TRUE(ledger.Accept(Stream::kTrain, 1, 2).ok());
  EXPECT_EQ(ledger.Total().issued, 3u);
}

// Random moves against a plain list of samples that each know where they are.
TEST(Ledger, AgreesWithAListOfSamplesUnderRandomMoves) {
  enum Where { kIssued, kAccepted, kBatched, kOut };
  for (int seed = 0; seed < 200; ++seed) {
    std::mt19937 random(static_cast<unsigned>(seed));
    Ledger ledger;
    std::vector<Where> samples;
    for (int event = 0; event < 200; ++event) {
      unsigned kind = random() % 4;
      if (kind == 0 || samples.empty()) {
        ledger.Issue(Stream::kTrain, 0, 2);
        samples.insert(samples.end(), 2, kIssued);
      } else {
        Where& sample = samples[random() % samples.size()];
        bool expected = sample != kOut;
        Status moved;
        if (kind == 1 && sample != kBatched) {
          Place from = sample == kIssued ? Place::kIssued : Place::kAccepted;
          if (sample == kOut) continue;
          moved = ledger.Drop(Stream::kTrain, 0, from, DropReason::kCancelled, 1);
          sample = kOut;
        } else if (sample == kIssued) {
          moved = ledger.Accept(Stream::kTrain, 0, 1);
          sample = kAccepted;
        } else if (sample == kAccepted) {
          moved = ledger.Batch(Stream::kTrain, 0, 1);
          sample = kBatched;
        } else if (sample == kBatched) {
          moved = ledger.Train(Stream::kTrain, 0, 1);
          sample = kOut;
        }
        ASSERT_TRUE(!expected || moved.ok()) << moved.ToString();
      }
      HeldCounts held{};
      for (Where where : samples) {
        if (where != kOut) ++held[where];
      }
      ASSERT_TRUE(ledger.Check({{{Stream::kTrain, 0}, held}}).ok());
    }
  }
}

}  // namespace
}  // namespace thresher::broker
