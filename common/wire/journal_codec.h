#pragma once

// Internal to common/wire: one codec per journal record, and the table that binds the variant
// JournalRecord to the union of journal.capnp. Write and Read as in types_codec.h.

#include <tuple>
#include <variant>

#include "common/wire/journal.capnp.h"
#include "common/wire/records.h"

namespace thresher::wire {

void Write(const EpochStarted& value, schema::EpochStarted::Builder out);
void Write(const ItemsIssued& value, schema::ItemsIssued::Builder out);
void Write(const SampleAccepted& value, schema::SampleAccepted::Builder out);
void Write(const SampleDropped& value, schema::SampleDropped::Builder out);
void Write(const BatchComposed& value, schema::BatchComposed::Builder out);
void Write(const StepCommitted& value, schema::StepCommitted::Builder out);
void Write(const VersionPublished& value, schema::VersionPublished::Builder out);
void Write(const StepsDurable& value, schema::StepsDurable::Builder out);
void Write(const RoundEvaluated& value, schema::RoundEvaluated::Builder out);
void Write(const RunFinished& value, schema::RunFinished::Builder out);
EpochStarted Read(schema::EpochStarted::Reader in);
ItemsIssued Read(schema::ItemsIssued::Reader in);
SampleAccepted Read(schema::SampleAccepted::Reader in);
SampleDropped Read(schema::SampleDropped::Reader in);
BatchComposed Read(schema::BatchComposed::Reader in);
StepCommitted Read(schema::StepCommitted::Reader in);
VersionPublished Read(schema::VersionPublished::Reader in);
StepsDurable Read(schema::StepsDurable::Reader in);
RoundEvaluated Read(schema::RoundEvaluated::Reader in);
RunFinished Read(schema::RunFinished::Reader in);

// One row of the table: T is the C++ record, the rest its member of the union.
template <typename T, auto kInit, auto kGet, schema::JournalRecord::Which kWhich>
struct JournalBinding {
  using Type = T;
  static constexpr schema::JournalRecord::Which which = kWhich;
  const char* name;

  static void WriteTo(const T& value, schema::JournalRecord::Builder out) {
    Write(value, (out.*kInit)());
  }
  static JournalRecord ReadFrom(schema::JournalRecord::Reader in) { return Read((in.*kGet)()); }
};

// clang-format off
#define THRESHER_WIRE_BIND(Type, UNION_NAME)                                   \
  JournalBinding<Type, &schema::JournalRecord::Builder::init##Type,            \
                 &schema::JournalRecord::Reader::get##Type,                    \
                 schema::JournalRecord::Which::UNION_NAME>{#Type}
// The one place that binds journal records to union members, in the order of JournalRecord.
inline constexpr auto kJournalTable = std::tuple{
    THRESHER_WIRE_BIND(EpochStarted, EPOCH_STARTED),
    THRESHER_WIRE_BIND(ItemsIssued, ITEMS_ISSUED),
    THRESHER_WIRE_BIND(SampleAccepted, SAMPLE_ACCEPTED),
    THRESHER_WIRE_BIND(SampleDropped, SAMPLE_DROPPED),
    THRESHER_WIRE_BIND(BatchComposed, BATCH_COMPOSED),
    THRESHER_WIRE_BIND(StepCommitted, STEP_COMMITTED),
    THRESHER_WIRE_BIND(VersionPublished, VERSION_PUBLISHED),
    THRESHER_WIRE_BIND(StepsDurable, STEPS_DURABLE),
    THRESHER_WIRE_BIND(RoundEvaluated, ROUND_EVALUATED),
    THRESHER_WIRE_BIND(RunFinished, RUN_FINISHED),
};
#undef THRESHER_WIRE_BIND
// clang-format on

inline constexpr std::size_t kJournalKinds = std::variant_size_v<JournalRecord>;

// Calls visit(binding) for the row of kind `index`, index < kJournalKinds.
template <std::size_t kRow = 0, typename Visitor>
auto VisitJournalBinding(std::size_t index, Visitor&& visit) {
  if constexpr (kRow + 1 < kJournalKinds) {
    if (index != kRow) return VisitJournalBinding<kRow + 1>(index, visit);
  }
  return visit(std::get<kRow>(kJournalTable));
}

}  // namespace thresher::wire
