#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/examples/chat_line.h"
#include "common/examples/example.h"
#include "common/model/tokenizer.h"
#include "common/model/tokenizer/chat_template.h"

namespace thresher::examples {

enum class OverLong { kRefuse, kTruncate, kDrop };

struct RenderOptions {
  const model::Tokenizer* tokenizer = nullptr;         // borrowed
  std::optional<model::ChatTemplate> chat_template{};  // none: the plain form
  std::int32_t bos = -1, eos = -1;                     // -1: the model has none
  std::set<std::string> loss_roles{"assistant"};
  std::size_t context = 0;  // most tokens
  OverLong over_long = OverLong::kRefuse;
};

// Lines as tokens (docs/supervised.md has the forms):
//   prompt and completion   <bos> prompt completion <eos>; completion and <eos> learned
//   text                    <bos> text <eos>; all learned but <bos>
//   conversation, plain     <bos>, the contents one behind the other, <eos> behind each answer
//   conversation, template  what the template writes; of an answer all behind the head that a model
//                           is given to answer, its end token included; of others their heads, too
// What is learned is encoded apart from what stands before it, as a prompt is before an answer is
// generated. Pure; threads share it.
class Renderer {
 public:
  struct Rendered {
    enum class Fit { kWhole, kTruncated, kDropped } fit = Fit::kWhole;
    Example example;  // empty if it is dropped: too long, or cut off before anything is learned
  };

  explicit Renderer(RenderOptions options) : options_(std::move(options)) {}

  // Error: kInvalidArgument naming the field: nothing to learn, an empty answer, a character that
  // the tokenizer lacks, what the template refuses, too long (with kRefuse).
  Result<Rendered> Render(const ChatLine& line) const;

 private:
  struct Piece {
    std::string text;
    Role role = Role::kPrompt;
    bool learned = false;
    bool ends = false;  // <eos> behind it
  };
  bool Learned(const ChatLine& line, const Turn& turn) const;
  Status RequireAnswers(const ChatLine& line) const;
  std::vector<Piece> PlainPieces(const ChatLine& line) const;
  Result<std::vector<Piece>> TemplatePieces(const ChatLine& line) const;
  // Where in the text the learned part of turn `at` begins and ends.
  Result<std::pair<std::size_t, std::size_t>> SpanOf(const std::vector<model::ChatMessage>& all,
                                                     const std::string& text, std::size_t at) const;
  Status Append(const Piece& piece, Example& example) const;
  Result<Rendered> Fitted(Example example) const;

  RenderOptions options_;
};

}  // namespace thresher::examples
