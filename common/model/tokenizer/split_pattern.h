#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace thresher::model {

// The regular expressions by which byte-level tokenizers cut text into words. They differ in
// contractions, in the length of numbers and in the white space and line ends a word takes along:
//   kGpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   kQwen2   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*
//            |\s*[\r\n]+|\s+(?!\S)|\s+
//   kLlama3  as kQwen2, with \p{N}{1,3}
enum class SplitPattern { kGpt2, kQwen2, kLlama3 };

// Recognises the text of an expression, in the spellings that are known to mean the same: without
// and with possessive quantifiers, and with the contractions written as tiktoken does.
std::optional<SplitPattern> RecognisePattern(std::string_view regex);
// What RecognisePattern knows, for an error message.
std::string KnownPatterns();

// Cuts text by one of the patterns, exactly as the expression does in Oniguruma with Unicode 16.0;
// the pieces cover the text. Linear time, except that white space before a line end is read twice.
class WordSplitter {
 public:
  explicit WordSplitter(SplitPattern pattern);
  // The end of the piece that begins at `at` (< text.size()). `text`: UTF-8 without errors.
  std::size_t PieceEnd(std::string_view text, std::size_t at) const;

 private:
  struct Character {
    std::uint8_t classes;
    std::uint8_t bytes;
  };
  Character At(std::string_view text, std::size_t at) const;
  std::size_t EndOfRun(std::string_view text, std::size_t at, std::uint8_t classes) const;
  std::size_t EndOfSymbols(std::string_view text, std::size_t at) const;
  std::size_t EndOfNumber(std::string_view text, std::size_t at) const;
  std::size_t EndOfSpace(std::string_view text, std::size_t at, bool lines) const;
  std::size_t Gpt2End(std::string_view text, std::size_t at) const;
  std::size_t ModernEnd(std::string_view text, std::size_t at) const;

  SplitPattern pattern_;
  const std::uint8_t* classes_;
};

}  // namespace thresher::model
