#include "common/wire/records.h"

#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <set>

#include "tests/unit/wire/random_values.h"

namespace thresher::wire {
namespace {

constexpr std::size_t kKinds = std::variant_size_v<JournalRecord>;

TEST(TrajectoryRecord, SurvivesTheRoundTrip) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    Trajectory trajectory = RandomValues(seed).MakeTrajectory();
    ASSERT_TRUE(trajectory.Validate().ok()) << trajectory.Validate().ToString();
    Result<Trajectory> decoded = DecodeTrajectory(EncodeTrajectory(trajectory));
    ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
    EXPECT_TRUE(*decoded == trajectory) << "seed " << seed;
    EXPECT_EQ(decoded->ContentHash(), trajectory.ContentHash());
  }
}

TEST(TrajectoryRecord, LongSequencesPassTheTraversalLimit) {
  Trajectory trajectory;
  trajectory.tokens.assign(500000, 7);
  trajectory.segments = {{0, 500000, Role::kPolicy, true}};
  trajectory.logprobs.assign(500000, -1.5f);
  std::string bytes = EncodeTrajectory(trajectory);
  EXPECT_LT(bytes.size(), 500000u * 8 + 2000);
  Result<Trajectory> decoded = DecodeTrajectory(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_TRUE(*decoded == trajectory);
}

TEST(TrajectoryRecord, FloatsKeepTheirBits) {
  Trajectory trajectory;
  trajectory.tokens = {1, 2};
  trajectory.segments = {{0, 2, Role::kPolicy, true}};
  trajectory.logprobs = {std::bit_cast<float>(0x7fa00001u), -0.0f};
  trajectory.outcome.score = std::bit_cast<double>(std::uint64_t{0x7ff4000000000123});
  Trajectory decoded = DecodeTrajectory(EncodeTrajectory(trajectory)).value();
  EXPECT_EQ(std::bit_cast<std::uint32_t>(decoded.logprobs[0]), 0x7fa00001u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(decoded.logprobs[1]), 0x80000000u);
  EXPECT_EQ(std::bit_cast<std::uint64_t>(decoded.outcome.score), 0x7ff4000000000123u);
}

TEST(TrajectoryRecord, BrokenRulesAreDataLossWithTheName) {
  Trajectory trajectory = RandomValues(3).MakeTrajectory();
  trajectory.id = {Stream::kTrain, 0, 12, 3};
  trajectory.segments.back().end += 1;
  Status status = DecodeTrajectory(EncodeTrajectory(trajectory)).status();
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("train/0/12/3: segments"), std::string::npos)
      << status.ToString();
}

TEST(TrajectoryRecord, UnknownEnumerationValuesAreDataLoss) {
  auto refused = [](auto&& change) {
    Trajectory trajectory;
    trajectory.tokens = {1};
    trajectory.segments = {{0, 1, Role::kPrompt, false}};
    change(trajectory);
    EXPECT_EQ(DecodeTrajectory(EncodeTrajectory(trajectory)).status().code(),
              StatusCode::kDataLoss);
  };
  refused([](Trajectory& t) { t.segments[0].role = static_cast<Role>(4); });
  refused([](Trajectory& t) { t.finish = static_cast<FinishReason>(5); });
  refused([](Trajectory& t) { t.outcome.kind = static_cast<OutcomeKind>(5); });
  refused([](Trajectory& t) { t.id.stream = static_cast<Stream>(5); });
}

// Takes and refuses what decoding the whole does, and reads the same.
void ExpectEqualVerdict(const SharedBytes& bytes) {
  const Result<Trajectory> whole = DecodeTrajectory(bytes);
  const Result<TrajectoryView> view = TrajectoryView::Open(bytes);
  ASSERT_EQ(view.status().ToString(), whole.status().ToString());
  if (!view.ok()) return;
  Trajectory read = view->fields();
  const TrajectoryArrays& arrays = view->arrays();
  EXPECT_TRUE(read.tokens.empty() && read.logprobs.empty() && read.text.empty());
  read.tokens.assign(arrays.tokens.begin(), arrays.tokens.end());
  read.logprobs.assign(arrays.logprobs.begin(), arrays.logprobs.end());
  read.kept_mass_logprobs.assign(arrays.kept_mass_logprobs.begin(),
                                 arrays.kept_mass_logprobs.end());
  read.text = arrays.text;
  EXPECT_EQ(EncodeTrajectory(read), EncodeTrajectory(*whole));  // NaNs differ from themselves
  EXPECT_EQ(TrajectoryRef(*view).ContentHash(), whole->ContentHash());
  std::size_t end = 0;
  for (const ArrayRange& range : view->Ranges()) {
    if (range.bytes == 0) continue;
    EXPECT_GE(range.offset, end);
    EXPECT_EQ(range.bytes % 4, 0u);
    end = range.offset + range.bytes;
  }
  EXPECT_LE(end, bytes.size());
}

TEST(TrajectoryRecord, MutationsAndTruncationsNeverCrash) {
  RandomValues random(11);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = EncodeTrajectory(random.MakeTrajectory());
    if (random.Bool()) bytes.resize(random.Below(bytes.size()));
    for (std::uint64_t edits = random.Below(5); edits > 0 && !bytes.empty(); --edits) {
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Below(256));
    }
    ExpectEqualVerdict(bytes);
    Result<Trajectory> decoded = DecodeTrajectory(bytes);
    if (decoded.ok()) {
      EXPECT_TRUE(decoded->Validate().ok());
    } else {
      EXPECT_EQ(decoded.status().code(), StatusCode::kDataLoss);
    }
  }
}

TEST(TrajectoryView, ReadsInPlaceWhatDecodingReads) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const SharedBytes bytes = EncodeTrajectory(RandomValues(seed).MakeTrajectory());
    ExpectEqualVerdict(bytes);
    const auto view = TrajectoryView::Open(bytes);
    const char* tokens = reinterpret_cast<const char*>(view->arrays().tokens.data());
    EXPECT_TRUE(view->arrays().tokens.empty() || (tokens > bytes.begin() && tokens < bytes.end()));
  }
}

TEST(TrajectoryView, TakesBytesThatDoNotBeginAtAWord) {
  for (std::size_t shift = 1; shift < 8; ++shift) {
    const std::string bytes = EncodeTrajectory(RandomValues(shift).MakeTrajectory());
    const SharedBytes frame(std::string(shift, '.') + bytes);
    ExpectEqualVerdict(frame.Slice(shift, bytes.size()));
  }
}

TEST(TrajectoryView, OutlivesWhoGaveItsBytes) {
  const Trajectory trajectory = RandomValues(5).MakeTrajectory();
  auto bytes = std::make_unique<SharedBytes>(EncodeTrajectory(trajectory));
  const auto view = TrajectoryView::Open(*bytes).value();
  bytes.reset();
  const wire::TrajectoryView moved = view;
  EXPECT_EQ(TrajectoryRef(moved).ContentHash(), trajectory.ContentHash());
}

TEST(JournalRecord, EveryKindSurvivesTheRoundTrip) {
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    for (std::uint64_t seed = 0; seed < 40; ++seed) {
      wire::JournalRecord record = RandomValues(seed * 1000 + kind).MakeJournalRecord(kind);
      ASSERT_EQ(record.index(), kind);
      Result<wire::JournalRecord> decoded = DecodeJournalRecord(EncodeJournalRecord(record));
      ASSERT_TRUE(decoded.ok()) << JournalRecordName(record) << decoded.status().ToString();
      EXPECT_TRUE(*decoded == record) << JournalRecordName(record) << " seed " << seed;
    }
  }
}

TEST(JournalRecord, MutationsAndTruncationsNeverCrash) {
  RandomValues random(12);
  for (int round = 0; round < 30000; ++round) {
    std::string bytes = EncodeJournalRecord(random.MakeJournalRecord(random.Below(kKinds)));
    if (random.Below(4) == 0) bytes.resize(random.Below(bytes.size()));
    for (std::uint64_t edits = random.Below(5); edits > 0 && !bytes.empty(); --edits) {
      bytes[random.Below(bytes.size())] = static_cast<char>(random.Below(256));
    }
    Result<wire::JournalRecord> decoded = DecodeJournalRecord(bytes);
    if (decoded.ok()) continue;
    EXPECT_EQ(decoded.status().code(), StatusCode::kDataLoss);
  }
}

TEST(JournalRecord, ValuesOutOfRangeAreDataLoss) {
  auto refused = [](const wire::JournalRecord& record) {
    EXPECT_EQ(DecodeJournalRecord(EncodeJournalRecord(record)).status().code(),
              StatusCode::kDataLoss);
  };
  refused(SampleDropped{{}, static_cast<DropReason>(kDropReasonCount), 0});
  SampleAccepted accepted;
  accepted.outcome = static_cast<OutcomeKind>(5);
  refused(accepted);
  ItemsIssued issued;
  issued.first_item = TrajectoryId::kMaxItem;
  issued.items = 2;
  refused(issued);
  EXPECT_EQ(DecodeJournalRecord("").status().code(), StatusCode::kDataLoss);
}

TEST(DropReasons, NamesParseBack) {
  std::set<std::string> names;
  for (int i = 0; i < kDropReasonCount; ++i) {
    auto reason = static_cast<DropReason>(i);
    names.insert(DropReasonName(reason));
    EXPECT_EQ(ParseDropReason(DropReasonName(reason)).value(), reason);
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(kDropReasonCount));
  Status status = ParseDropReason("tired").status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("zero_variance"), std::string::npos);
}

TEST(BatchDigest, DependsOnOrderIdentityAndContent) {
  RandomValues random(13);
  std::vector<BatchEntry> entries;
  for (int i = 0; i < 5; ++i) entries.push_back({random.Id(), random.Hash()});
  Hash128 digest = HashBatch(entries);
  EXPECT_EQ(HashBatch(entries), digest);
  auto differs = [&](std::vector<BatchEntry> other) { EXPECT_NE(HashBatch(other), digest); };
  auto changed = entries;
  std::swap(changed[1], changed[2]);
  differs(changed);
  changed = entries;
  changed[4].id.sample ^= 1;
  differs(changed);
  changed = entries;
  changed[0].content_hash.low ^= 1;
  differs(changed);
  changed = entries;
  changed.pop_back();
  differs(changed);
}

TEST(BatchDigest, ChainDependsOnAllStepsInOrder) {
  Hash128 a{1, 2}, b{3, 4};
  Hash128 ab = HashChain(HashChain({}, a), b);
  EXPECT_NE(ab, HashChain(HashChain({}, b), a));
  EXPECT_NE(ab, HashChain({}, b));
}

}  // namespace
}  // namespace thresher::wire
