#include "actor/outbox.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

namespace thresher::actor {
namespace {

using namespace std::chrono_literals;
using wire::UploadVerdict;

class OutboxTest : public ::testing::Test {
 protected:
  static Outbox::Limits Limits() { return {3, 100, 50ms, 5s}; }
  OutboxTest() { outbox_.OnCredit({1, 1000000}, clock_.Now()); }

  // Adds a record of `bytes` bytes whose text and fence name it.
  void Add(int number, std::size_t bytes = 10) {
    std::string record = std::to_string(number) + ":";
    record.resize(std::max(record.size(), bytes), '.');
    outbox_.Add(FencingToken(static_cast<std::uint64_t>(number)), record, clock_.Now());
  }
  void Tick(bool flush = false) { outbox_.Tick(clock_.Now(), flush); }
  // The uploads sent since the last call.
  std::vector<wire::Upload> Sent() { return std::exchange(sent_, {}); }
  static wire::UploadAck Accept(const wire::Upload& upload) {
    return {upload.upload,
            std::vector(upload.records.size(), UploadVerdict::kAccepted),
            std::vector<std::string>(upload.records.size()),
            {}};
  }
  // First numbers of the records of an upload.
  static std::vector<int> Numbers(const wire::Upload& upload) {
    std::vector<int> out;
    EXPECT_EQ(upload.fences.size(), upload.records.size());
    for (std::size_t i = 0; i < upload.records.size(); ++i) {
      out.push_back(std::stoi(upload.records[i].ToString()));
      EXPECT_EQ(upload.fences[i].value, static_cast<std::uint64_t>(out.back()));
    }
    return out;
  }

  ManualClock clock_;
  std::vector<wire::Upload> sent_;
  std::vector<std::pair<UploadVerdict, std::string>> refused_;
  Outbox outbox_{[this](const wire::Message& m) { sent_.push_back(std::get<wire::Upload>(m)); },
                 [this](UploadVerdict verdict, const std::string& reason) {
                   refused_.emplace_back(verdict, reason);
                 },
                 Limits()};
};

using Numbered = std::vector<int>;

TEST_F(OutboxTest, SendsAFullBatchAtOnce) {
  for (int i : {1, 2, 3, 4}) Add(i);
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{1, 2, 3}));
  EXPECT_EQ(sent[0].upload, 1u);
  EXPECT_EQ(outbox_.unaccepted(), 4u);
}

TEST_F(OutboxTest, SendsBeforeABatchExceedsItsBytes) {
  Add(1, 60);
  Add(2, 41);
  auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{1}));
  // A record larger than the limit travels alone.
  Add(3, 500);
  Add(4, 10);
  sent = Sent();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{2}));
  EXPECT_EQ(Numbers(sent[1]), (Numbered{3}));
  Add(5, 90);  // 10 + 90 is exactly the limit
  EXPECT_TRUE(Sent().empty());
  Tick(true);
  sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{4, 5}));
}

TEST_F(OutboxTest, SendsWhatIsOldEnoughOrFlushed) {
  Tick(true);
  EXPECT_TRUE(Sent().empty());  // nothing to send is not sent
  Add(1);
  clock_.Advance(30ms);
  Add(2);
  clock_.Advance(19ms);
  Tick();
  EXPECT_TRUE(Sent().empty());
  clock_.Advance(1ms);
  Tick();
  auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{1, 2}));
  Add(3);
  Tick(true);
  sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].upload, 2u);
  EXPECT_EQ(outbox_.uploads_sent(), 2u);
}

TEST_F(OutboxTest, KeepsAndResendsUntilItIsAnswered) {
  Add(1);
  Tick(true);
  Add(2);
  Tick(true);
  const auto first = Sent();
  ASSERT_EQ(first.size(), 2u);
  EXPECT_EQ(outbox_.OnAck(Accept(first[0])), 1u);
  clock_.Advance(4999ms);
  Tick();
  EXPECT_TRUE(Sent().empty());
  clock_.Advance(1ms);
  Tick();
  auto again = Sent();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0], first[1]);  // the same number and bytes
  clock_.Advance(1s);
  Tick();
  EXPECT_TRUE(Sent().empty());  // the retry counts from the last sending
  EXPECT_EQ(outbox_.OnAck(Accept(first[1])), 1u);
  clock_.Advance(1h);
  Tick();
  EXPECT_TRUE(Sent().empty());
  EXPECT_EQ(outbox_.unaccepted(), 0u);
}

TEST_F(OutboxTest, AReconnectSendsEverythingUnansweredInOrder) {
  for (int i = 1; i <= 7; ++i) Add(i);
  auto sent = Sent();
  ASSERT_EQ(sent.size(), 2u);
  outbox_.ResendAll({1, 1000}, clock_.Now());
  EXPECT_EQ(Sent(), sent);  // what still gathers is not part of it
  clock_.Advance(50ms);
  Tick();
  sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{7}));
}

TEST_F(OutboxTest, ASecondAckOfTheSameUploadSettlesNothing) {
  for (int i : {1, 2, 3}) Add(i);
  const auto sent = Sent();
  EXPECT_EQ(outbox_.OnAck(Accept(sent.at(0))), 3u);
  EXPECT_EQ(outbox_.OnAck(Accept(sent.at(0))), 0u);
  EXPECT_EQ(outbox_.OnAck({99, {}, {}, {}}), 0u);
  EXPECT_EQ(outbox_.unaccepted(), 0u);
}

TEST_F(OutboxTest, DuplicatesAreSettledAndRefusalsReported) {
  for (int i : {1, 2, 3}) Add(i);
  const auto sent = Sent();
  EXPECT_EQ(
      outbox_.OnAck({sent.at(0).upload,
                     {UploadVerdict::kDuplicate, UploadVerdict::kConflict, UploadVerdict::kRefused},
                     {"", "differs from actor 4's", "unknown item"},
                     {}}),
      3u);
  ASSERT_EQ(refused_.size(), 2u);
  EXPECT_EQ(refused_[0],
            std::pair(UploadVerdict::kConflict, std::string("differs from actor 4's")));
  EXPECT_EQ(refused_[1], std::pair(UploadVerdict::kRefused, std::string("unknown item")));
  EXPECT_EQ(outbox_.unaccepted(), 0u);
}

TEST_F(OutboxTest, AnAckThatDoesNotSpeakOfEveryRecordSettlesNothing) {
  for (int i : {1, 2, 3}) Add(i);
  const auto sent = Sent();
  EXPECT_EQ(outbox_.OnAck({sent.at(0).upload, {UploadVerdict::kAccepted}, {""}, {}}), 0u);
  EXPECT_EQ(outbox_.unaccepted(), 3u);
  clock_.Advance(5s);
  Tick();
  EXPECT_EQ(Sent(), sent);
  EXPECT_EQ(outbox_.OnAck(Accept(sent[0])), 3u);
}

TEST_F(OutboxTest, NothingIsSentBeforeThereIsCredit) {
  outbox_.ResendAll({}, clock_.Now());
  for (int i : {1, 2, 3}) Add(i);
  Tick(true);
  EXPECT_TRUE(Sent().empty());
  EXPECT_TRUE(outbox_.blocked());
  outbox_.OnCredit({2, 30}, clock_.Now());
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{1, 2, 3}));
  EXPECT_FALSE(outbox_.blocked());
}

TEST_F(OutboxTest, WhatIsUnansweredStaysWithinTheCredit) {
  outbox_.OnCredit({2, 45}, clock_.Now());
  for (int i = 1; i <= 8; ++i) Add(i);  // 10 bytes each
  auto sent = Sent();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{1, 2, 3}));
  EXPECT_EQ(Numbers(sent[1]), (Numbered{4}));  // what still fits
  EXPECT_TRUE(outbox_.blocked());
  clock_.Advance(1s);
  Tick(true);
  EXPECT_TRUE(Sent().empty());
  outbox_.OnAck(Accept(sent[0]));
  Tick(true);
  sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(Numbers(sent[0]), (Numbered{5, 6, 7}));
  EXPECT_EQ(outbox_.unaccepted(), 5u);
}

TEST_F(OutboxTest, ASmallerCreditIsObeyedOnceEnoughIsAnswered) {
  for (int i = 1; i <= 6; ++i) Add(i);
  const auto sent = Sent();
  outbox_.OnCredit({2, 30}, clock_.Now());
  EXPECT_EQ(outbox_.Obeyed(), (wire::Credit{2, 60}));
  Add(7);
  Tick(true);
  outbox_.OnAck(Accept(sent[0]));
  Tick(true);
  EXPECT_TRUE(Sent().empty());
  EXPECT_EQ(outbox_.Obeyed(), (wire::Credit{2, 30}));
  outbox_.OnAck(Accept(sent[1]));
  Tick(true);
  EXPECT_EQ(Sent().size(), 1u);
}

TEST_F(OutboxTest, NamesTheLeasesOfWhatIsNotAccepted) {
  outbox_.OnCredit({2, 30}, clock_.Now());
  for (int i = 1; i <= 5; ++i) Add(i);
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(outbox_.Fences().size(), 5u);
  outbox_.OnAck(Accept(sent[0]));
  EXPECT_EQ(outbox_.Fences(), (std::set{FencingToken(4), FencingToken(5)}));
}

TEST_F(OutboxTest, AnOlderCreditIsIgnored) {
  outbox_.OnCredit({5, 20}, clock_.Now());
  outbox_.OnCredit({4, 1000}, clock_.Now());
  EXPECT_EQ(outbox_.Obeyed(), (wire::Credit{5, 20}));
  outbox_.ResendAll({1, 50}, clock_.Now());  // another broker begins to count anew
  EXPECT_EQ(outbox_.Obeyed(), (wire::Credit{1, 50}));
}

TEST_F(OutboxTest, AnUploadThatWasBeyondTheCreditIsSentAgain) {
  for (int i = 1; i <= 6; ++i) Add(i);
  auto sent = Sent();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(outbox_.OnAck({sent[1].upload, {}, {}, {}}), 0u);
  EXPECT_EQ(outbox_.OnAck({sent[1].upload, {}, {}, {}}), 0u);  // said twice, it counts once
  EXPECT_EQ(outbox_.Obeyed().bytes, 1000000u);
  outbox_.OnCredit({2, 30}, clock_.Now());
  EXPECT_TRUE(Sent().empty());
  EXPECT_TRUE(outbox_.blocked());
  outbox_.OnAck(Accept(sent[0]));
  Tick();
  EXPECT_EQ(Sent(), (std::vector{sent[1]}));
  EXPECT_EQ(outbox_.OnAck(Accept(sent[1])), 3u);
  EXPECT_EQ(outbox_.unaccepted(), 0u);
  EXPECT_EQ(outbox_.Obeyed().bytes, 30u);
}

TEST_F(OutboxTest, AnUploadLargerThanTheNewCreditIsTakenApart) {
  for (int i = 1; i <= 6; ++i) Add(i);
  const auto before = Sent();
  outbox_.ResendAll({1, 20}, clock_.Now());
  std::vector<int> arrived;
  for (int i = 0; i < 6; ++i) {
    Tick(true);
    for (const wire::Upload& upload : Sent()) {
      EXPECT_LE(upload.records.size(), 2u);
      for (int number : Numbers(upload)) arrived.push_back(number);
      outbox_.OnAck(Accept(upload));
    }
  }
  EXPECT_EQ(arrived, (Numbered{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(outbox_.OnAck(Accept(before[0])), 0u);  // its number is nobody's any more
  EXPECT_EQ(outbox_.unaccepted(), 0u);
}

TEST_F(OutboxTest, ARefusalThatComesAfterTheAcceptanceChangesNothing) {
  for (int i : {1, 2, 3}) Add(i);
  const auto sent = Sent();
  EXPECT_EQ(outbox_.OnAck({sent.at(0).upload, {}, {}, {}}), 0u);
  EXPECT_EQ(outbox_.OnAck(Accept(sent[0])), 3u);  // of the copy before
  outbox_.OnCredit({2, 30}, clock_.Now());
  for (int i : {4, 5, 6}) Add(i);
  EXPECT_EQ(Sent().size(), 1u);  // nothing is counted as unanswered
}

class KeepingOutboxTest : public OutboxTest {
 protected:
  KeepingOutboxTest() { Welcome(1); }
  void Welcome(std::uint64_t epoch, std::uint64_t credit = 1000000) {
    outbox_.OnEpoch(BrokerEpoch(epoch), true);
    outbox_.ResendAll({1, credit}, clock_.Now());
  }
  // Sends the records 1 to 6 in two uploads, which are answered.
  std::vector<wire::Upload> TwoKept() {
    for (int i = 1; i <= 6; ++i) Add(i);
    const auto sent = Sent();
    for (const wire::Upload& upload : sent) EXPECT_EQ(outbox_.OnAck(Accept(upload)), 3u);
    return sent;
  }
};
using Uploads = std::vector<std::uint64_t>;

TEST_F(KeepingOutboxTest, WhatIsAcceptedIsKeptUntilItIsConsumed) {
  const auto sent = TwoKept();
  EXPECT_EQ(outbox_.Kept(), (Uploads{1, 2}));
  EXPECT_EQ(outbox_.kept_bytes(), 60u);
  EXPECT_EQ(outbox_.unaccepted(), 0u);
  EXPECT_EQ(outbox_.Obeyed().bytes, 1000000u);
  EXPECT_TRUE(outbox_.Fences().empty());
  clock_.Advance(1h);
  Tick(true);
  Welcome(1);  // the same broker
  EXPECT_TRUE(Sent().empty());
  outbox_.OnConsumed({{1, 7}});
  EXPECT_EQ(outbox_.Kept(), (Uploads{2}));
  EXPECT_EQ(outbox_.kept_bytes(), 30u);
  EXPECT_EQ(outbox_.OnAck(Accept(sent[1])), 0u);  // a late copy of the answer
  EXPECT_EQ(outbox_.Kept(), (Uploads{2}));
}

TEST_F(KeepingOutboxTest, AnotherBrokerGetsEverythingAgainWithinItsCredit) {
  const auto kept = TwoKept();
  Add(7);
  Tick(true);
  const auto unanswered = Sent();
  Welcome(2, 45);
  EXPECT_TRUE(outbox_.Kept().empty());  // it does not have them yet
  EXPECT_EQ(Sent(), (std::vector{kept[0]}));
  EXPECT_EQ(outbox_.OnAck(Accept(kept[0])), 3u);
  EXPECT_EQ(outbox_.Kept(), (Uploads{1}));
  Tick();
  EXPECT_EQ(Sent(), (std::vector{kept[1], unanswered[0]}));
  EXPECT_EQ(outbox_.unaccepted(), 1u);
  outbox_.OnConsumed({{2}});  // it is on its way: answered first
  outbox_.OnAck(Accept(kept[1]));
  EXPECT_EQ(outbox_.Kept(), (Uploads{1, 2}));
  outbox_.OnAck(Accept(unanswered[0]));
  EXPECT_EQ(outbox_.unaccepted(), 0u);
  EXPECT_EQ(outbox_.Obeyed().bytes, 45u);
}

TEST_F(KeepingOutboxTest, WhatIsConsumedIsNotSentToAnotherBroker) {
  TwoKept();
  Welcome(2, 0);
  outbox_.OnConsumed({{1, 2}});
  outbox_.OnCredit({2, 1000}, clock_.Now());
  Tick(true);
  EXPECT_TRUE(Sent().empty());
}

TEST_F(KeepingOutboxTest, ARefusalIsReportedOnceAndKeepsNothing) {
  for (int i : {1, 2, 3}) Add(i);
  const auto sent = Sent();
  const wire::UploadAck mixed{
      1,
      {UploadVerdict::kAccepted, UploadVerdict::kRefused, UploadVerdict::kDuplicate},
      {"", "x", ""},
      {}};
  EXPECT_EQ(outbox_.OnAck(mixed), 3u);
  Welcome(2);
  EXPECT_EQ(Sent(), sent);
  EXPECT_EQ(outbox_.OnAck(mixed), 3u);
  EXPECT_EQ(refused_.size(), 1u);
  for (int i : {4, 5, 6}) Add(i);
  Sent();
  outbox_.OnAck({2, std::vector(3, UploadVerdict::kRefused), {"", "", ""}, {}});
  EXPECT_EQ(outbox_.Kept(), (Uploads{1}));
}

TEST_F(KeepingOutboxTest, AKeptUploadLargerThanTheNewCreditIsTakenApart) {
  TwoKept();
  Welcome(2, 20);
  std::vector<int> arrived;
  for (int i = 0; i < 6; ++i) {
    Tick(true);
    for (const wire::Upload& upload : Sent()) {
      for (int number : Numbers(upload)) arrived.push_back(number);
      outbox_.OnAck(Accept(upload));
    }
  }
  EXPECT_EQ(arrived, (Numbered{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(outbox_.unaccepted(), 0u);
  EXPECT_EQ(outbox_.kept_bytes(), 60u);
}

TEST_F(KeepingOutboxTest, ABrokerThatDoesNotAskForItEndsIt) {
  const auto kept = TwoKept();
  outbox_.OnEpoch(BrokerEpoch(2), false);
  outbox_.ResendAll({1, 1000}, clock_.Now());
  EXPECT_EQ(Sent(), kept);
  for (const wire::Upload& upload : kept) outbox_.OnAck(Accept(upload));
  EXPECT_TRUE(outbox_.Kept().empty());
  Welcome(3);
  EXPECT_TRUE(Sent().empty());
}

TEST_F(KeepingOutboxTest, TellsOfSoManyAsABrokerListensTo) {
  for (int i = 1; i <= 300; ++i) {
    Add(i);
    Tick(true);
    for (const wire::Upload& upload : Sent()) outbox_.OnAck(Accept(upload));
  }
  EXPECT_EQ(outbox_.Kept().size(), wire::Heartbeat::kMostKeptTold);
  EXPECT_EQ(outbox_.Kept().front(), 1u);
}

class PrefixOutboxTest : public ::testing::Test {
 protected:
  PrefixOutboxTest() { outbox_.OnCredit({1, 1000}, clock_.Now()); }
  static TrajectoryId Id(std::uint64_t item) { return {Stream::kTrain, 0, item, 0}; }
  void AddPrefix(std::uint64_t item, std::uint32_t tokens, std::size_t bytes = 10) {
    outbox_.AddPrefix(Id(item), FencingToken(item), tokens,
                      std::string(bytes, static_cast<char>('a' + item)));
  }
  std::vector<wire::Upload> Sent() {
    outbox_.Tick(clock_.Now(), false);
    return std::exchange(sent_, {});
  }
  void Answer(const wire::Upload& upload, UploadVerdict verdict) {
    outbox_.OnAck({upload.upload,
                   std::vector(upload.records.size(), verdict),
                   std::vector<std::string>(upload.records.size()),
                   {}});
  }

  ManualClock clock_;
  std::vector<wire::Upload> sent_;
  std::vector<std::tuple<std::uint64_t, std::uint32_t, bool>> told_;
  int refused_ = 0;
  Outbox outbox_{[this](const wire::Message& m) { sent_.push_back(std::get<wire::Upload>(m)); },
                 [this](UploadVerdict, const std::string&) { ++refused_; },
                 {3, 100, 50ms, 5s},
                 [this](const TrajectoryId& id, std::uint32_t tokens, bool kept) {
                   told_.emplace_back(id.item, tokens, kept);
                 }};
};
using Told = std::vector<std::tuple<std::uint64_t, std::uint32_t, bool>>;

TEST_F(PrefixOutboxTest, PrefixesTravelInUploadsOfTheirOwnBehindEverythingElse) {
  AddPrefix(1, 5);
  AddPrefix(2, 6);
  for (int i = 0; i < 3; ++i) outbox_.Add(FencingToken(9), std::string(10, 'z'), clock_.Now(), 4);
  EXPECT_EQ(outbox_.unaccepted_tokens(), 12u);
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].fences, (std::vector(3, FencingToken(9))));
  EXPECT_EQ(sent[1].fences, (std::vector{FencingToken(1), FencingToken(2)}));
  EXPECT_EQ(outbox_.unaccepted(), 3u);
  EXPECT_FALSE(outbox_.idle());
  Answer(sent[0], UploadVerdict::kAccepted);
  EXPECT_EQ(outbox_.unaccepted_tokens(), 0u);
  EXPECT_FALSE(outbox_.idle());
  Answer(sent[1], UploadVerdict::kAccepted);
  EXPECT_TRUE(outbox_.idle());
  EXPECT_EQ(told_, (Told{{1, 5, true}, {2, 6, true}}));
}

TEST_F(PrefixOutboxTest, OfASampleOnlyTheLongestWaits) {
  AddPrefix(1, 5);
  AddPrefix(2, 5);
  AddPrefix(1, 7, 12);
  outbox_.DropPrefix(Id(2));
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  ASSERT_EQ(sent[0].records.size(), 1u);
  EXPECT_EQ(sent[0].records[0].size(), 12u);
}

TEST_F(PrefixOutboxTest, ARefusedOneIsToldAndIsNoRefusedRecord) {
  AddPrefix(1, 5);
  Answer(Sent().at(0), UploadVerdict::kRefused);
  AddPrefix(1, 6);
  Answer(Sent().at(0), UploadVerdict::kDuplicate);
  EXPECT_EQ(told_, (Told{{1, 5, false}, {1, 6, true}}));
  EXPECT_EQ(refused_, 0);
}

TEST_F(PrefixOutboxTest, PrefixesBeyondTheCreditWaitAndHoldNothingUp) {
  AddPrefix(1, 5, 900);
  AddPrefix(2, 5, 900);
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_FALSE(outbox_.blocked());
  outbox_.Add(FencingToken(9), std::string(50, 'z'), clock_.Now());
  outbox_.Tick(clock_.Now(), true);
  EXPECT_EQ(std::exchange(sent_, {}).size(), 1u);
  AddPrefix(2, 6, 800);
  EXPECT_TRUE(Sent().empty());
  Answer(sent[0], UploadVerdict::kAccepted);
  const auto later = Sent();
  ASSERT_EQ(later.size(), 1u);
  EXPECT_EQ(later[0].records[0].size(), 800u);
}

TEST_F(PrefixOutboxTest, AnUploadOfPrefixesIsSentAgainAndKeptByNobody) {
  AddPrefix(1, 5);
  const auto sent = Sent();
  clock_.Advance(6s);
  EXPECT_EQ(Sent(), sent);
  outbox_.OnEpoch(BrokerEpoch(2), true);
  outbox_.ResendAll({1, 1000}, clock_.Now());
  EXPECT_EQ(Sent(), sent);
  Answer(sent[0], UploadVerdict::kAccepted);
  EXPECT_TRUE(outbox_.Kept().empty());
  outbox_.OnEpoch(BrokerEpoch(3), true);
  outbox_.ResendAll({1, 1000}, clock_.Now());
  EXPECT_TRUE(Sent().empty());
}

// A copy that is known because it was sent before is no waste.
TEST_F(PrefixOutboxTest, TokensOfASampleThatAnotherOneFinishedFirstAreTold) {
  for (int i = 0; i < 3; ++i) outbox_.Add(FencingToken(9), std::string(10, 'z'), clock_.Now(), 4);
  for (int i = 0; i < 3; ++i) outbox_.Add(FencingToken(9), std::string(10, 'z'), clock_.Now(), 7);
  const auto sent = Sent();
  ASSERT_EQ(sent.size(), 2u);
  Answer(sent[0], UploadVerdict::kDuplicate);
  EXPECT_EQ(outbox_.duplicate_tokens(), 12u);
  clock_.Advance(6s);
  ASSERT_EQ(Sent().size(), 1u);
  Answer(sent[1], UploadVerdict::kDuplicate);
  EXPECT_EQ(outbox_.duplicate_tokens(), 12u);
  EXPECT_EQ(outbox_.unaccepted_tokens(), 0u);
}

// Else those that become longer at the same time as others would never be sent.
TEST_F(PrefixOutboxTest, ALongerOneTakesTheTurnOfAShorterOne) {
  AddPrefix(1, 5, 400);
  AddPrefix(2, 5, 400);
  AddPrefix(3, 5, 400);
  auto sent = Sent();
  std::vector<wire::Upload> all = sent;
  for (std::uint64_t item : {1, 2, 3}) AddPrefix(item, 6, 400);
  for (const auto& upload : sent) Answer(upload, UploadVerdict::kAccepted);
  sent = Sent();
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(sent.front().fences.front(), FencingToken(3));
}

// The broker had it, and died before it said so.
TEST_F(PrefixOutboxTest, ACopyOfWhatWasSentBeforeIsNoWasteHoweverItIsSentAgain) {
  for (int i = 0; i < 3; ++i) outbox_.Add(FencingToken(9), std::string(100, 'z'), clock_.Now(), 4);
  outbox_.Tick(clock_.Now(), true);
  ASSERT_FALSE(std::exchange(sent_, {}).empty());
  outbox_.OnEpoch(BrokerEpoch(2), false);
  outbox_.ResendAll({2, 100}, clock_.Now());
  EXPECT_EQ(outbox_.UnsentTokens(), 0u);
  for (int i = 0; i < 5; ++i) {
    outbox_.Tick(clock_.Now(), true);
    for (const auto& upload : std::exchange(sent_, {})) Answer(upload, UploadVerdict::kDuplicate);
  }
  EXPECT_EQ(outbox_.unaccepted(), 0u);
  EXPECT_EQ(outbox_.duplicate_tokens(), 0u);
}

TEST_F(PrefixOutboxTest, TokensThatNeverLeftAreTold) {
  for (int i = 0; i < 3; ++i) outbox_.Add(FencingToken(9), std::string(300, 'z'), clock_.Now(), 4);
  outbox_.Add(FencingToken(9), std::string(300, 'z'), clock_.Now(), 5);
  EXPECT_EQ(outbox_.UnsentTokens(), 5u);
  EXPECT_EQ(outbox_.unaccepted_tokens(), 17u);
  for (const auto& upload : Sent()) Answer(upload, UploadVerdict::kAccepted);
  outbox_.Tick(clock_.Now(), true);
  EXPECT_EQ(outbox_.UnsentTokens(), 0u);
}

TEST_F(PrefixOutboxTest, AnUploadLargerThanTheNewCreditIsTakenApart) {
  for (std::uint64_t item : {1, 2, 3}) AddPrefix(item, 5, 30);
  ASSERT_EQ(Sent().size(), 1u);
  outbox_.OnEpoch(BrokerEpoch(2), false);
  AddPrefix(2, 6, 30);
  outbox_.ResendAll({2, 40}, clock_.Now());
  for (int i = 0; i < 5; ++i) {
    for (const wire::Upload& upload : Sent()) {
      ASSERT_EQ(upload.records.size(), 1u);
      Answer(upload, UploadVerdict::kAccepted);
    }
  }
  EXPECT_EQ(told_.size(), 3u);
  EXPECT_TRUE(std::ranges::count(told_, std::tuple(std::uint64_t{2}, 6u, true)) == 1);
  EXPECT_TRUE(outbox_.idle());
}

}  // namespace
}  // namespace thresher::actor
