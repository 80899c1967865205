#include "common/model/tokenizer/added_tokens.h"

#include <algorithm>

#include "common/model/tokenizer/character_class.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

std::uint8_t ClassesAt(std::string_view text, std::size_t at) {
  return CharacterClasses()[NextCharacter(text.substr(at)).character];
}

// Where the character before `end` begins.
std::size_t Before(std::string_view text, std::size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

bool WordEndsAt(std::string_view text, std::size_t end) {
  return end > 0 && (ClassesAt(text, Before(text, end)) & kWordCharacter) != 0;
}

bool WordBeginsAt(std::string_view text, std::size_t begin) {
  return begin < text.size() && (ClassesAt(text, begin) & kWordCharacter) != 0;
}

std::size_t SkipSpaceBack(std::string_view text, std::size_t end, std::size_t least) {
  while (end > least) {
    const std::size_t before = Before(text, end);
    if (before < least || (ClassesAt(text, before) & kSpace) == 0) break;
    end = before;
  }
  return end;
}

std::size_t SkipSpace(std::string_view text, std::size_t at) {
  while (at < text.size() && (ClassesAt(text, at) & kSpace) != 0) {
    at += NextCharacter(text.substr(at)).bytes;
  }
  return at;
}

}  // namespace

void AddedTokenMatcher::Add(std::string_view text, const AddedToken& token) {
  std::size_t at = 0;
  for (char byte : text) {
    const Node* child = Child(nodes_[at], byte);
    if (child == nullptr) {
      nodes_[at].next.emplace_back(static_cast<unsigned char>(byte), nodes_.size());
      nodes_.emplace_back();
      child = &nodes_.back();
    }
    at = static_cast<std::size_t>(child - nodes_.data());
  }
  if (at == 0 || nodes_[at].token >= 0) return;
  nodes_[at].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
  first_[static_cast<unsigned char>(text[0])] = true;
}

const AddedTokenMatcher::Node* AddedTokenMatcher::Child(const Node& node, char byte) const {
  for (const auto& [key, child] : node.next) {
    if (key == static_cast<unsigned char>(byte)) return &nodes_[static_cast<std::size_t>(child)];
  }
  return nullptr;
}

// The first match at or after `from`.
bool AddedTokenMatcher::Next(std::string_view text, std::size_t from, Match* match) const {
  for (std::size_t begin = from; begin < text.size(); ++begin) {
    if (!first_[static_cast<unsigned char>(text[begin])]) continue;
    std::int32_t longest = -1;
    const Node* node = &nodes_[0];
    for (std::size_t at = begin; at < text.size(); ++at) {
      node = Child(*node, text[at]);
      if (node == nullptr) break;
      if (node->token < 0) continue;
      longest = node->token;
      match->end = at + 1;
    }
    if (longest < 0) continue;
    match->begin = begin;
    match->token = &tokens_[static_cast<std::size_t>(longest)];
    return true;
  }
  return false;
}

std::vector<Segment> AddedTokenMatcher::Find(std::string_view text) const {
  std::vector<Segment> segments;
  std::size_t done = 0;                        // text before is in a segment
  std::size_t space_begin = 1, space_end = 0;  // white space that was skipped last
  Match match{};
  for (std::size_t from = 0; Next(text, from, &match); from = match.end) {
    const AddedToken& token = *match.token;
    std::size_t begin = match.begin, end = match.end;
    if (token.single_word && (WordEndsAt(text, begin) || WordBeginsAt(text, end))) continue;
    if (token.lstrip) begin = std::max(SkipSpaceBack(text, begin, std::min(done, begin)), done);
    if (token.rstrip) {
      // Within white space that was skipped already its end is known: no character is read again.
      if (end < space_begin || end > space_end) {
        space_begin = end;
        space_end = SkipSpace(text, end);
      }
      end = space_end;
    }
    if (done < begin) segments.push_back({done, begin, -1});
    segments.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({done, text.size(), -1});
  return segments;
}

}  // namespace thresher::model
