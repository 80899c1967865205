#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thresher::model {

// A token that is found in text before it is cut into words, as `added_tokens` of tokenizer.json
// describes it.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for in the normalised text
  bool special = false;      // left out by Decode
};

// A stretch of text: one added token, or (id < 0) text between two.
struct Segment {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::int32_t id = -1;
};

// Finds added tokens in text, the leftmost first and the longest of those that begin there, as the
// `tokenizers` package does. Time: proportional to the text times the longest token.
class AddedTokenMatcher {
 public:
  // Adds a token by the text to look for. Of two equal texts the first is kept.
  void Add(std::string_view text, const AddedToken& token);
  bool empty() const { return tokens_.empty(); }
  // Cuts `text` (UTF-8 without errors) into segments. They cover it, except for white space that
  // a token takes along; a token within such white space overlaps the one before it.
  std::vector<Segment> Find(std::string_view text) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::int32_t>> next;
    std::int32_t token = -1;  // index into tokens_
  };
  struct Match {
    std::size_t begin, end;
    const AddedToken* token;
  };
  const Node* Child(const Node& node, char byte) const;
  bool Next(std::string_view text, std::size_t from, Match* match) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> first_ = {};
};

}  // namespace thresher::model
