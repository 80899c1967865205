#include "common/wire/records.h"

#include <iterator>

#include "common/base/hash.h"
#include "common/wire/journal_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {
namespace {

// The table, the variant and the union agree row by row.
template <std::size_t... kRows>
constexpr bool TableFits(std::index_sequence<kRows...>) {
  return ((std::is_same_v<typename std::tuple_element_t<kRows, decltype(kJournalTable)>::Type,
                          std::variant_alternative_t<kRows, JournalRecord>> &&
           static_cast<std::size_t>(std::get<kRows>(kJournalTable).which) == kRows) &&
          ...);
}
static_assert(std::tuple_size_v<decltype(kJournalTable)> == kJournalKinds);
static_assert(TableFits(std::make_index_sequence<kJournalKinds>()));

constexpr const char* kDropReasonNames[] = {"stale",           "zero_variance",  "over_long",
                                            "prompt_too_long", "grader_failure", "cancelled",
                                            "surplus",         "not_selected",   "deadline"};
static_assert(std::size(kDropReasonNames) == kDropReasonCount);

}  // namespace

const char* DropReasonName(DropReason reason) {
  int index = static_cast<int>(reason);
  THRESHER_CHECK(index < kDropReasonCount, "unknown drop reason " + std::to_string(index));
  return kDropReasonNames[index];
}

Result<DropReason> ParseDropReason(std::string_view name) {
  std::string allowed;
  for (int i = 0; i < kDropReasonCount; ++i) {
    if (name == kDropReasonNames[i]) return static_cast<DropReason>(i);
    allowed += (i == 0 ? "" : ", ") + std::string(kDropReasonNames[i]);
  }
  return InvalidArgument("drop reason is '" + std::string(name) + "'; allowed: " + allowed);
}

void AppendJournalRecord(std::string& out, const JournalRecord& record) {
  FirstSegment first;
  capnp::MallocMessageBuilder message(first.words());
  auto root = message.initRoot<schema::JournalRecord>();
  VisitJournalBinding(record.index(), [&](const auto& binding) {
    using Type = typename std::decay_t<decltype(binding)>::Type;
    binding.WriteTo(std::get<Type>(record), root);
  });
  AppendCapnp(out, message);
}

std::string EncodeJournalRecord(const JournalRecord& record) {
  std::string bytes;
  AppendJournalRecord(bytes, record);
  return bytes;
}

Result<JournalRecord> DecodeJournalRecord(std::string_view bytes) {
  JournalRecord record;
  THRESHER_RETURN_IF_ERROR(ReadCapnp<schema::JournalRecord>(
      bytes, "journal record", [&](schema::JournalRecord::Reader root) {
        auto kind = static_cast<std::size_t>(root.which());
        Require(kind < kJournalKinds,
                [&] { return "kind " + std::to_string(kind) + " is unknown"; });
        record =
            VisitJournalBinding(kind, [&](const auto& binding) { return binding.ReadFrom(root); });
      }));
  return record;
}

const char* JournalRecordName(const JournalRecord& record) {
  return VisitJournalBinding(record.index(), [](const auto& binding) { return binding.name; });
}

Hash128 HashBatch(const std::vector<BatchEntry>& entries) {
  Hasher128 hasher;
  hasher.Update("thresher.batch.1");
  hasher.UpdateU64(entries.size());
  for (const BatchEntry& entry : entries) {
    hasher.UpdateU64(static_cast<std::uint64_t>(entry.id.stream));
    hasher.UpdateU64(entry.id.island);
    hasher.UpdateU64(entry.id.item);
    hasher.UpdateU64(entry.id.sample);
    hasher.UpdateHash(entry.content_hash);
  }
  return hasher.Finish();
}

Hash128 HashChain(const Hash128& previous, const Hash128& digest) {
  Hasher128 hasher;
  hasher.Update("thresher.chain.1");
  hasher.UpdateHash(previous);
  hasher.UpdateHash(digest);
  return hasher.Finish();
}

}  // namespace thresher::wire
