#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "kernels/cpu/attention.h"

namespace thresher::actor {

inline constexpr auto kPageSize = static_cast<std::int32_t>(kernels::kKvPageSize);

inline std::int32_t PagesFor(std::size_t positions) {
  return static_cast<std::int32_t>((positions + kPageSize - 1) / kPageSize);
}

// Which KV page holds which tokens after which prefix: a tree of pages, found by their tokens. The
// keys and values of a position depend on the tokens up to it and on the weights alone (row
// purity), so a page found here has the bits that computing it again would give. Tokens are
// compared, not hashes of them. All pages are of one version of the weights: the owner clears the
// tree when that changes. Knows nothing of who holds a page. Not thread-safe.
class PrefixCache {
 public:
  static constexpr std::int32_t kNone = -1;

  explicit PrefixCache(std::int32_t pages);
  PrefixCache(const PrefixCache&) = delete;  // the order refers to the nodes
  PrefixCache& operator=(const PrefixCache&) = delete;

  // The longest known prefix of some tokens.
  struct Match {
    std::vector<std::int32_t> pages;  // whole pages, in order
    std::int32_t tail_page = kNone;   // its first `tail_positions` positions come next
    std::int32_t tail_positions = 0;  // 0 to kPageSize - 1
  };
  Match Find(std::span<const std::int32_t> tokens) const;

  // Makes `page`, which follows `parent` (kNone: it is the first), known by its first tokens: 1 to
  // kPageSize of them. Again with more tokens when it has been filled further. A parent is whole.
  void Put(std::int32_t page, std::int32_t parent, std::span<const std::int32_t> tokens);
  bool Has(std::int32_t page) const { return At(page).size > 0; }
  // Forgets a known page without known successors.
  void Remove(std::int32_t page);

 private:
  struct Node {
    std::int32_t parent = kNone;
    std::int32_t size = 0;  // tokens; 0: not known
    std::int32_t children = 0;
    std::array<std::int32_t, kPageSize> tokens{};
    std::span<const std::int32_t> text() const {
      return std::span(tokens).first(static_cast<std::size_t>(size));
    }
  };
  // Siblings stand side by side in lexicographic order of their tokens, so that the one with the
  // longest common prefix is next to the place of the tokens looked for.
  struct Key {
    std::int32_t parent;
    std::span<const std::int32_t> tokens;
    std::int32_t page;  // several pages may hold the same tokens
  };
  struct Less {
    using is_transparent = void;
    const PrefixCache* cache;
    bool operator()(std::int32_t a, std::int32_t b) const;
    bool operator()(std::int32_t a, const Key& b) const;
    bool operator()(const Key& a, std::int32_t b) const;
  };
  const Node& At(std::int32_t page) const;
  Node& At(std::int32_t page);
  Key KeyOf(std::int32_t page) const { return {At(page).parent, At(page).text(), page}; }
  static bool Before(const Key& a, const Key& b);
  // The child of `parent` that begins most like `tokens`, and the length they share.
  std::pair<std::int32_t, std::int32_t> BestChild(std::int32_t parent,
                                                  std::span<const std::int32_t> tokens) const;

  std::vector<Node> nodes_;  // by page
  std::set<std::int32_t, Less> order_;
};

}  // namespace thresher::actor
