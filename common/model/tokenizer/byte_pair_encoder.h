#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace thresher::model {

// One merge of a byte-pair vocabulary: the neighbours `left`, `right` become `merged`.
struct Merge {
  std::int32_t left, right, merged;
};

// Byte-pair encoding of single words over a vocabulary that has all 256 bytes. A word begins as its
// bytes; the pair of neighbours whose merge stands first in the list, the leftmost of equals, is
// replaced by its token until no pair has a merge. Long words take a heap: O(n log n) for n bytes.
//
// Most words of a text are tokens themselves. Whether the merges really lead from a token's bytes
// to that token is found out the first time it is met and remembered, which changes no result; so
// threads share an encoder.
class BytePairEncoder {
 public:
  // `tokens`: bytes by id; empty for ids that no word is made of. They must hold every single byte
  // and outlive the encoder. `merges`: in order of their rank; of two for one pair the later
  // counts. `ignore_merges`: a word that is a token is that token, whatever the merges say.
  BytePairEncoder(const std::vector<std::string_view>& tokens, const std::vector<Merge>& merges,
                  bool ignore_merges);

  // Appends the ids of `word` (any bytes).
  void Encode(std::string_view word, std::vector<std::int32_t>* ids) const;
  // The id of the token with these bytes; -1 if there is none.
  std::int32_t Find(std::string_view bytes) const;

 private:
  static constexpr std::uint32_t kNoRank = 0xFFFFFFFF;
  struct Rule {
    std::uint64_t pair = ~std::uint64_t{0};
    std::uint32_t rank = kNoRank;
    std::int32_t merged = -1;
  };
  struct Word {
    std::uint32_t check = 0;
    std::int32_t id = -1;
  };

  void AddRule(const Merge& merge, std::uint32_t rank);
  void AddWord(std::int32_t id);
  const Rule& RuleOf(std::int32_t left, std::int32_t right) const;
  bool IsOneToken(std::int32_t id) const;
  void Merged(std::string_view word, std::vector<std::int32_t>* ids) const;
  void MergedShort(std::string_view word, std::vector<std::int32_t>* ids) const;
  void MergedLong(std::string_view word, std::vector<std::int32_t>* ids) const;

  std::vector<std::string_view> tokens_;
  bool ignore_merges_;
  std::size_t longest_ = 0;  // bytes of the longest token
  std::array<std::int32_t, 256> byte_ids_ = {};
  std::vector<Rule> rules_;  // open addressing, sizes are powers of two
  std::vector<Word> words_;
  // By id: 0 not known yet, 1 the merges give the token back, 2 they do not.
  std::unique_ptr<std::atomic<std::uint8_t>[]> whole_;
};

}  // namespace thresher::model
