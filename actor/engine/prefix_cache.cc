#include "actor/engine/prefix_cache.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/base/check.h"

namespace thresher::actor {
namespace {

std::int32_t CommonLength(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<std::int32_t>(end - a.begin());
}

}  // namespace

PrefixCache::PrefixCache(std::int32_t pages)
    : nodes_(static_cast<std::size_t>(pages)), order_(Less{this}) {}

const PrefixCache::Node& PrefixCache::At(std::int32_t page) const {
  THRESHER_CHECK(page >= 0 && static_cast<std::size_t>(page) < nodes_.size(), "no such KV page");
  return nodes_[static_cast<std::size_t>(page)];
}

PrefixCache::Node& PrefixCache::At(std::int32_t page) {
  return const_cast<Node&>(std::as_const(*this).At(page));
}

bool PrefixCache::Before(const Key& a, const Key& b) {
  if (a.parent != b.parent) return a.parent < b.parent;
  const auto order = std::lexicographical_compare_three_way(a.tokens.begin(), a.tokens.end(),
                                                            b.tokens.begin(), b.tokens.end());
  return order != 0 ? order < 0 : a.page < b.page;
}

bool PrefixCache::Less::operator()(std::int32_t a, std::int32_t b) const {
  return Before(cache->KeyOf(a), cache->KeyOf(b));
}
bool PrefixCache::Less::operator()(std::int32_t a, const Key& b) const {
  return Before(cache->KeyOf(a), b);
}
bool PrefixCache::Less::operator()(const Key& a, std::int32_t b) const {
  return Before(a, cache->KeyOf(b));
}

std::pair<std::int32_t, std::int32_t> PrefixCache::BestChild(
    std::int32_t parent, std::span<const std::int32_t> tokens) const {
  std::pair<std::int32_t, std::int32_t> best{kNone, 0};
  const auto consider = [&](std::int32_t page) {
    if (At(page).parent != parent) return;
    const std::int32_t common = CommonLength(At(page).text(), tokens);
    if (common > best.second) best = {page, common};
  };
  const auto next = order_.lower_bound(Key{parent, tokens, kNone});
  if (next != order_.end()) consider(*next);
  if (next != order_.begin()) consider(*std::prev(next));
  return best;
}

PrefixCache::Match PrefixCache::Find(std::span<const std::int32_t> tokens) const {
  Match match;
  std::int32_t parent = kNone;
  while (!tokens.empty()) {
    const auto head = tokens.first(std::min<std::size_t>(tokens.size(), kPageSize));
    const auto [page, common] = BestChild(parent, head);
    if (common < kPageSize) {
      if (common > 0) match.tail_page = page;
      match.tail_positions = common;
      break;
    }
    match.pages.push_back(page);
    parent = page;
    tokens = tokens.subspan(kPageSize);
  }
  return match;
}

void PrefixCache::Put(std::int32_t page, std::int32_t parent,
                      std::span<const std::int32_t> tokens) {
  THRESHER_CHECK(!tokens.empty() && tokens.size() <= kPageSize, "a page of no or too many tokens");
  Node& node = At(page);
  THRESHER_CHECK(node.children == 0, "a page with successors is whole");
  if (node.size > 0) {
    THRESHER_CHECK(node.parent == parent && CommonLength(node.text(), tokens) == node.size,
                   "a known page keeps its parent and its first tokens");
    order_.erase(page);
  } else if (parent != kNone) {
    THRESHER_CHECK(At(parent).size == kPageSize, "the page before is not whole");
    ++At(parent).children;
  }
  node.parent = parent;
  node.size = static_cast<std::int32_t>(tokens.size());
  std::copy(tokens.begin(), tokens.end(), node.tokens.begin());
  order_.insert(page);
}

void PrefixCache::Remove(std::int32_t page) {
  Node& node = At(page);
  THRESHER_CHECK(node.size > 0 && node.children == 0, "removes a page unknown or with successors");
  order_.erase(page);
  if (node.parent != kNone) --At(node.parent).children;
  node = Node{};
}

}  // namespace thresher::actor
