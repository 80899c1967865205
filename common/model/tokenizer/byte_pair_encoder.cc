#include "common/model/tokenizer/byte_pair_encoder.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "common/base/check.h"
#include "common/base/hash.h"

namespace thresher::model {
namespace {

// Below this many bytes a scan for the best pair is faster than a heap.
constexpr std::size_t kShortWord = 48;
constexpr std::uint32_t kEnd = 0xFFFFFFFF;  // no neighbour

std::uint64_t PairOf(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

// Fibonacci hashing; the high half of the product depends on all bits.
std::size_t Spread(std::uint64_t key) {
  const std::uint64_t mixed = (key ^ (key >> 29)) * 0x9E3779B97F4A7C15u;
  return static_cast<std::size_t>(mixed ^ (mixed >> 32));
}

std::uint64_t HashOf(std::string_view bytes) {
  return HashBytes64(std::as_bytes(std::span(bytes.data(), bytes.size())));
}

// Twice the entries, so that a search ends soon.
std::size_t Slots(std::size_t entries) { return std::bit_ceil(entries * 2 + 1); }

}  // namespace

BytePairEncoder::BytePairEncoder(const std::vector<std::string_view>& tokens,
                                 const std::vector<Merge>& merges, bool ignore_merges)
    : tokens_(tokens),
      ignore_merges_(ignore_merges),
      rules_(Slots(merges.size())),
      words_(Slots(tokens.size())),
      whole_(std::make_unique<std::atomic<std::uint8_t>[]>(tokens.size())) {
  byte_ids_.fill(-1);
  for (std::size_t id = 0; id < tokens_.size(); ++id) AddWord(static_cast<std::int32_t>(id));
  for (int byte = 0; byte < 256; ++byte) {
    THRESHER_CHECK(byte_ids_[static_cast<std::size_t>(byte)] >= 0, "a vocabulary without a byte");
  }
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    AddRule(merges[rank], static_cast<std::uint32_t>(rank));
  }
}

void BytePairEncoder::AddWord(std::int32_t id) {
  const std::string_view bytes = tokens_[static_cast<std::size_t>(id)];
  if (bytes.empty()) return;
  longest_ = std::max(longest_, bytes.size());
  if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
  const std::uint64_t hash = HashOf(bytes);
  std::size_t at = hash & (words_.size() - 1);
  while (words_[at].id >= 0) at = (at + 1) & (words_.size() - 1);
  words_[at] = {static_cast<std::uint32_t>(hash >> 32), id};
}

void BytePairEncoder::AddRule(const Merge& merge, std::uint32_t rank) {
  const std::uint64_t pair = PairOf(merge.left, merge.right);
  std::size_t at = Spread(pair) & (rules_.size() - 1);
  while (rules_[at].merged >= 0 && rules_[at].pair != pair) at = (at + 1) & (rules_.size() - 1);
  rules_[at] = {pair, rank, merge.merged};
}

std::int32_t BytePairEncoder::Find(std::string_view bytes) const {
  if (bytes.empty() || bytes.size() > longest_) return -1;
  const std::uint64_t hash = HashOf(bytes);
  const auto check = static_cast<std::uint32_t>(hash >> 32);
  for (std::size_t at = hash & (words_.size() - 1);; at = (at + 1) & (words_.size() - 1)) {
    const Word& word = words_[at];
    if (word.id < 0) return -1;
    if (word.check == check && tokens_[static_cast<std::size_t>(word.id)] == bytes) return word.id;
  }
}

// The merge of two neighbours; one without rank when there is none.
inline const BytePairEncoder::Rule& BytePairEncoder::RuleOf(std::int32_t left,
                                                            std::int32_t right) const {
  const std::uint64_t pair = PairOf(left, right);
  std::size_t at = Spread(pair) & (rules_.size() - 1);
  while (rules_[at].merged >= 0 && rules_[at].pair != pair) at = (at + 1) & (rules_.size() - 1);
  return rules_[at];
}

bool BytePairEncoder::IsOneToken(std::int32_t id) const {
  if (ignore_merges_) return true;
  std::atomic<std::uint8_t>& known = whole_[static_cast<std::size_t>(id)];
  std::uint8_t state = known.load(std::memory_order_relaxed);
  if (state == 0) {
    std::vector<std::int32_t> ids;
    Merged(tokens_[static_cast<std::size_t>(id)], &ids);
    state = ids.size() == 1 ? 1 : 2;
    known.store(state, std::memory_order_relaxed);
  }
  return state == 1;
}

void BytePairEncoder::Encode(std::string_view word, std::vector<std::int32_t>* ids) const {
  if (word.size() == 1) {
    ids->push_back(byte_ids_[static_cast<unsigned char>(word[0])]);
    return;
  }
  const std::int32_t id = Find(word);
  if (id >= 0 && IsOneToken(id)) {
    ids->push_back(id);
  } else {
    Merged(word, ids);
  }
}

void BytePairEncoder::Merged(std::string_view word, std::vector<std::int32_t>* ids) const {
  word.size() <= kShortWord ? MergedShort(word, ids) : MergedLong(word, ids);
}

void BytePairEncoder::MergedShort(std::string_view word, std::vector<std::int32_t>* ids) const {
  std::array<std::int32_t, kShortWord> symbols;
  std::array<const Rule*, kShortWord> rules;  // rules[i]: of symbols i and i + 1
  std::size_t count = word.size();
  for (std::size_t i = 0; i < count; ++i) {
    symbols[i] = byte_ids_[static_cast<unsigned char>(word[i])];
  }
  for (std::size_t i = 0; i + 1 < count; ++i) rules[i] = &RuleOf(symbols[i], symbols[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (rules[i]->rank < rules[best]->rank) best = i;
    }
    if (rules[best]->rank == kNoRank) break;
    symbols[best] = rules[best]->merged;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) symbols[i] = symbols[i + 1];
    for (std::size_t i = best + 1; i + 1 < count; ++i) rules[i] = rules[i + 1];
    if (best > 0) rules[best - 1] = &RuleOf(symbols[best - 1], symbols[best]);
    if (best + 1 < count) rules[best] = &RuleOf(symbols[best], symbols[best + 1]);
  }
  ids->insert(ids->end(), symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(count));
}

void BytePairEncoder::MergedLong(std::string_view word, std::vector<std::int32_t>* ids) const {
  THRESHER_CHECK(word.size() < kEnd, "a word of 4 GiB");
  struct Symbol {
    std::int32_t id;  // -1: merged into the one before
    std::uint32_t previous, next;
  };
  struct Candidate {
    std::uint32_t rank, at;
    std::int32_t left, right;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto size = static_cast<std::uint32_t>(word.size());
  std::vector<Symbol> symbols(size);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap;
  const auto offer = [&](std::uint32_t at) {
    if (at == kEnd || symbols[at].next == kEnd) return;
    const std::int32_t left = symbols[at].id, right = symbols[symbols[at].next].id;
    const Rule& rule = RuleOf(left, right);
    if (rule.merged >= 0) heap.push({rule.rank, at, left, right});
  };
  for (std::uint32_t i = 0; i < size; ++i) {
    symbols[i] = {byte_ids_[static_cast<unsigned char>(word[i])], i == 0 ? kEnd : i - 1,
                  i + 1 == size ? kEnd : i + 1};
  }
  for (std::uint32_t i = 0; i < size; ++i) offer(i);
  while (!heap.empty()) {
    const Candidate best = heap.top();
    heap.pop();
    Symbol& left = symbols[best.at];
    if (left.id != best.left || left.next == kEnd || symbols[left.next].id != best.right) continue;
    Symbol& right = symbols[left.next];
    left.id = RuleOf(best.left, best.right).merged;
    right.id = -1;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = best.at;
    offer(left.previous);
    offer(best.at);
  }
  for (std::uint32_t at = 0; at != kEnd; at = symbols[at].next) ids->push_back(symbols[at].id);
}

}  // namespace thresher::model
