#include "common/examples/renderer.h"

#include <algorithm>
#include <utility>

#include "common/model/tokenizer/utf8.h"

namespace thresher::examples {
namespace {

constexpr std::size_t kTextBytesPerToken = 8;  // as the estimate of the largest record has it

std::string FieldOf(std::size_t turn) { return "messages[" + std::to_string(turn) + "]"; }

// Of what stands before any answer it is the prompt; later the world's.
Role RoleOf(const std::string& role, bool answered) {
  if (role == "assistant") return Role::kPolicy;
  if (role == "tool") return Role::kTool;
  return answered ? Role::kEnvironment : Role::kPrompt;
}

void AppendTokens(std::span<const std::int32_t> tokens, Role role, bool learned, Example& example) {
  for (std::int32_t token : tokens) {
    const auto at = static_cast<std::uint32_t>(example.tokens.size());
    example.tokens.push_back(token);
    const bool in_loss = learned && at > 0;  // nothing predicts the first token
    auto& segments = example.segments;
    if (segments.empty() || segments.back().role != role || segments.back().in_loss != in_loss) {
      segments.push_back({at, at, role, in_loss});
    }
    segments.back().end = at + 1;
  }
}

// The first character that the tokenizer has no token for; empty: there is none. Byte-level
// tokenizers have one for everything.
std::string Unknown(const model::Tokenizer& tokenizer, const std::string& text) {
  if (tokenizer.TokenId("<unk>") != model::Tokenizer::kUnk) return "";
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t bytes = model::NextCharacter(std::string_view(text).substr(i)).bytes;
    const std::string character = text.substr(i, bytes);
    const auto ids = tokenizer.Encode(character);
    if (ids.size() == 1 && ids[0] == model::Tokenizer::kUnk) return character;
    i += bytes;
  }
  return "";
}

}  // namespace

bool Renderer::Learned(const ChatLine& line, const Turn& turn) const {
  if (line.form != ChatLine::Form::kChat) return turn.learned;
  return turn.learned && options_.loss_roles.contains(turn.role);
}

Status Renderer::RequireAnswers(const ChatLine& line) const {
  bool any = false;
  for (std::size_t i = 0; i < line.turns.size(); ++i) {
    if (!Learned(line, line.turns[i])) continue;
    any = true;
    if (line.turns[i].content.empty()) {
      return InvalidArgument(FieldOf(i) + ".content: empty; allowed: text to learn, or weight 0");
    }
  }
  if (any) return Status::Ok();
  std::string roles;
  for (const std::string& role : options_.loss_roles) roles += (roles.empty() ? "" : ", ") + role;
  return InvalidArgument(
      "messages: nothing is learned of them; allowed: at least one of a role in "
      "supervised.loss_roles (" +
      roles + ") that has not weight 0");
}

std::vector<Renderer::Piece> Renderer::PlainPieces(const ChatLine& line) const {
  std::vector<Piece> pieces;
  bool answered = false;
  for (const Turn& turn : line.turns) {
    const bool answer = turn.role == "assistant";
    pieces.push_back({turn.content, RoleOf(turn.role, answered), Learned(line, turn), answer});
    answered |= answer;
  }
  return pieces;
}

Result<std::pair<std::size_t, std::size_t>> Renderer::SpanOf(
    const std::vector<model::ChatMessage>& all, const std::string& text, std::size_t at) const {
  const bool answer = all[at].role == "assistant";
  if (answer && at == 0) {
    return InvalidArgument(FieldOf(0) +
                           ".role: assistant; allowed: a message before it, for the model's chat "
                           "template gives no head to begin an answer with, or weight 0");
  }
  const std::span<const model::ChatMessage> messages(all);
  std::string head;
  if (at > 0) {
    model::ChatOptions options;
    options.add_generation_prompt = answer;
    THRESHER_ASSIGN_OR_RETURN(head, options_.chat_template->Render(messages.first(at), options));
  }
  model::ChatOptions options;
  options.add_generation_prompt = false;
  THRESHER_ASSIGN_OR_RETURN(std::string whole,
                            options_.chat_template->Render(messages.first(at + 1), options));
  if (!whole.starts_with(head) || !text.starts_with(whole)) {
    return InvalidArgument(FieldOf(at) + ": the chat template (" + options_.chat_template->name() +
                           ") writes it otherwise when other messages follow; allowed: weight 0, "
                           "or to be the last");
  }
  constexpr std::string_view kEnd = "<|im_end|>\n";  // the newline is the template's
  return std::pair(head.size(), whole.size() - (whole.ends_with(kEnd) ? 1 : 0));
}

Result<std::vector<Renderer::Piece>> Renderer::TemplatePieces(const ChatLine& line) const {
  std::vector<model::ChatMessage> messages;
  for (const Turn& turn : line.turns) messages.push_back({turn.role, turn.content});
  model::ChatOptions options;
  options.add_generation_prompt = false;
  THRESHER_ASSIGN_OR_RETURN(const std::string text,
                            options_.chat_template->Render(messages, options));
  std::vector<Piece> pieces;
  std::size_t done = 0;
  bool answered = false;
  const auto between = [&](std::size_t end) {
    pieces.push_back({text.substr(done, end - done), RoleOf("user", answered), false, false});
    done = end;
  };
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (Learned(line, line.turns[i])) {
      THRESHER_ASSIGN_OR_RETURN(const auto span, SpanOf(messages, text, i));
      between(std::max(done, span.first));
      pieces.push_back(
          {text.substr(done, span.second - done), RoleOf(messages[i].role, answered), true, false});
      done = span.second;
    }
    answered |= messages[i].role == "assistant";
  }
  between(text.size());
  return pieces;
}

Status Renderer::Append(const Piece& piece, Example& example) const {
  const std::string unknown = Unknown(*options_.tokenizer, piece.text);
  if (!unknown.empty()) {
    return InvalidArgument("found the character '" + unknown +
                           "'; allowed: those of the model's tokenizer");
  }
  AppendTokens(options_.tokenizer->Encode(piece.text), piece.role, piece.learned, example);
  const std::int32_t eos = options_.eos;
  if (piece.ends && eos >= 0) AppendTokens({&eos, 1}, piece.role, piece.learned, example);
  if (piece.learned) example.text += piece.text;
  return Status::Ok();
}

Result<Renderer::Rendered> Renderer::Fitted(Example example) const {
  const auto context = static_cast<std::uint32_t>(options_.context);
  Rendered out;
  if (example.tokens.size() > context) {
    if (options_.over_long == OverLong::kRefuse) {
      return InvalidArgument(std::to_string(example.tokens.size()) +
                             " tokens; allowed: at most model.context (" + std::to_string(context) +
                             "), or supervised.over_long: truncate or drop");
    }
    out.fit = Rendered::Fit::kTruncated;
    example.tokens.resize(context);
    std::erase_if(example.segments, [&](const Segment& s) { return s.begin >= context; });
    example.segments.back().end = context;
  }
  const bool cut = out.fit == Rendered::Fit::kTruncated;
  if (cut && (options_.over_long == OverLong::kDrop || example.LossTokens() == 0)) {
    out.fit = Rendered::Fit::kDropped;
    return out;
  }
  if (example.LossTokens() == 0) {
    return InvalidArgument("one token, which nothing predicts; allowed: at least two");
  }
  if (example.text.size() > kTextBytesPerToken * example.tokens.size()) example.text.clear();
  example.instance_hash = HashTokens(example.tokens, example.tokens.size());
  example.outcome.reason = "example";
  out.example = std::move(example);
  return out;
}

Result<Renderer::Rendered> Renderer::Render(const ChatLine& line) const {
  THRESHER_RETURN_IF_ERROR(RequireAnswers(line));
  const bool templated = line.form == ChatLine::Form::kChat && options_.chat_template;
  std::vector<Piece> pieces;
  if (templated) {
    THRESHER_ASSIGN_OR_RETURN(pieces, TemplatePieces(line));
  } else {
    pieces = PlainPieces(line);
  }
  Example example;
  if (!templated && options_.bos >= 0) {
    AppendTokens({&options_.bos, 1}, Role::kPrompt, false, example);
  }
  for (const Piece& piece : pieces) THRESHER_RETURN_IF_ERROR(Append(piece, example));
  return Fitted(std::move(example));
}

}  // namespace thresher::examples
