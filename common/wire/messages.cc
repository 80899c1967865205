#include "common/wire/messages.h"

#include "common/wire/messages_codec.h"
#include "common/wire/types_codec.h"

namespace thresher::wire {
namespace {

// The table, the variant and the union agree row by row.
template <std::size_t... kRows>
constexpr bool TableFits(std::index_sequence<kRows...>) {
  return ((std::is_same_v<typename std::tuple_element_t<kRows, decltype(kMessageTable)>::Type,
                          std::variant_alternative_t<kRows, Message>> &&
           static_cast<std::size_t>(std::get<kRows>(kMessageTable).which) == kRows) &&
          ...);
}
static_assert(std::tuple_size_v<decltype(kMessageTable)> == kMessageKinds);
static_assert(TableFits(std::make_index_sequence<kMessageKinds>()));
static_assert(kMessageKinds <= 256, "the kind is one byte of the frame header");

std::vector<std::string_view> Views(const std::vector<SharedBytes>& records) {
  return {records.begin(), records.end()};
}

}  // namespace

const char* MessageName(const Message& message) {
  return VisitBinding(message.index(), [](const auto& binding) { return binding.name; });
}

std::vector<std::string_view> PayloadsOf(const Message& message) {
  if (const auto* upload = std::get_if<Upload>(&message)) return Views(upload->records);
  if (const auto* part = std::get_if<LeafPart>(&message)) return Views(part->records);
  if (const auto* grant = std::get_if<LeaseGrant>(&message)) return Views(grant->prefixes);
  if (const auto* chunk = std::get_if<Chunk>(&message)) return {chunk->bytes};
  return {};
}

void AttachPayloads(Message& message, std::vector<SharedBytes> payloads) {
  if (auto* upload = std::get_if<Upload>(&message)) {
    Require(payloads.size() == upload->fences.size(), "upload: records and fences differ");
    upload->records = std::move(payloads);
  } else if (auto* part = std::get_if<LeafPart>(&message)) {
    part->records = std::move(payloads);
  } else if (auto* grant = std::get_if<LeaseGrant>(&message)) {
    grant->prefixes = std::move(payloads);
  } else if (auto* chunk = std::get_if<Chunk>(&message)) {
    Require(payloads.size() == 1, "chunk: one payload segment expected");
    chunk->bytes = std::move(payloads.front());
  } else {
    Require(payloads.empty(), "payload segments behind a message that has none");
  }
}

}  // namespace thresher::wire
