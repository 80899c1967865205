#include "common/model/tokenizer/template_form.h"

#include <algorithm>
#include <cctype>
#include <vector>

#include "common/model/tokenizer/utf8.h"

namespace thresher::model {
namespace {

constexpr std::string_view kSystemBegin = "<|im_start|>system\n";
constexpr std::string_view kSystemEnd = "<|im_end|>\n";
constexpr char kDefaultMark = '\x01', kOtherEscape = '\x02';

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsOneOf(char c, std::string_view set) { return set.find(c) != set.npos; }
bool IsName(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// A stretch of literal text, or a tag of kind '{' (output), '%' (statement) or '#' (comment).
struct Part {
  char kind = 0;  // 0: text
  std::string_view text;
  bool strip_before = false, strip_after = false;  // '-' at that side
  bool keep_before = false, keep_after = false;    // '+' at that side
};

// Newlines as Jinja reads them; without the last one of the file.
std::string Newlines(std::string_view jinja) {
  std::string text;
  for (std::size_t i = 0; i < jinja.size(); ++i) {
    if (jinja[i] != '\r') {
      text += jinja[i];
    } else if (i + 1 == jinja.size() || jinja[i + 1] != '\n') {
      text += '\n';
    }
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

// Where the tag that begins before `at` closes; strings within may hold its closing mark.
std::size_t CloseOf(std::string_view text, std::size_t at, char kind) {
  const char close = kind == '{' ? '}' : kind;
  for (; at + 1 < text.size(); ++at) {
    const char c = text[at];
    if (c == close && text[at + 1] == '}') return at;
    if (kind == '#' || (c != '\'' && c != '"')) continue;
    for (++at; at < text.size() && text[at] != c; ++at) {
      if (text[at] == '\\') ++at;
    }
  }
  return std::string_view::npos;
}

std::vector<Part> PartsOf(std::string_view text) {
  std::vector<Part> parts;
  while (!text.empty()) {
    std::size_t open = 0;
    while (open + 1 < text.size() && !(text[open] == '{' && IsOneOf(text[open + 1], "{%#"))) {
      ++open;
    }
    const bool tag = open + 1 < text.size();
    const std::size_t close = tag ? CloseOf(text, open + 2, text[open + 1]) : text.npos;
    if (close == text.npos) {
      parts.push_back({0, text});
      break;
    }
    if (open > 0) parts.push_back({0, text.substr(0, open)});
    Part part{text[open + 1], text.substr(open + 2, close - open - 2)};
    if (!part.text.empty()) {
      part.strip_before = part.text.front() == '-';
      part.keep_before = part.text.front() == '+';
      if (part.strip_before || part.keep_before) part.text.remove_prefix(1);
    }
    if (!part.text.empty()) {
      part.strip_after = part.text.back() == '-';
      part.keep_after = part.text.back() == '+';
      if (part.strip_after || part.keep_after) part.text.remove_suffix(1);
    }
    parts.push_back(part);
    text.remove_prefix(close + 2);
  }
  return parts;
}

// Literal text between two tags (either may be null) as Jinja leaves it.
std::string_view Stripped(std::string_view text, const Part* before, const Part* after) {
  bool line_begins = before == nullptr;
  if (before != nullptr && before->strip_after) {
    while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  } else if (before != nullptr && before->kind != '{' && !before->keep_after &&
             text.starts_with('\n')) {
    text.remove_prefix(1);
    line_begins = true;
  }
  if (after != nullptr && after->strip_before) {
    while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  } else if (after != nullptr && after->kind != '{' && !after->keep_before) {
    std::size_t end = text.size();
    while (end > 0 && IsSpace(text[end - 1]) && text[end - 1] != '\n') --end;
    if (end == 0 ? line_begins : text[end - 1] == '\n') text = text.substr(0, end);
  }
  return text;
}

// The value of a string in a tag, `quoted` without its quotes. Other escapes get a mark that no
// known template has.
std::string StringValue(std::string_view quoted) {
  std::string value;
  for (std::size_t i = 0; i < quoted.size(); ++i) {
    if (quoted[i] != '\\' || i + 1 == quoted.size()) {
      value += quoted[i];
      continue;
    }
    switch (quoted[++i]) {
      case 'n':
        value += '\n';
        break;
      case 't':
        value += '\t';
        break;
      case 'r':
        value += '\r';
        break;
      case '\\':
      case '\'':
      case '"':
        value += quoted[i];
        break;
      default:
        value += kOtherEscape;
        value += quoted[i];
    }
  }
  return value;
}

// A form is made of these; text and strings are compared by value.
struct Token {
  enum Kind { kText, kOpen, kClose, kString, kOther } kind;
  std::string value;
};

void AddTokens(std::string_view code, std::vector<Token>* tokens) {
  bool member = false;  // after a dot
  while (!code.empty()) {
    const char c = code.front();
    std::size_t size = 1;
    if (IsSpace(c)) {
      code.remove_prefix(1);
      continue;
    }
    if (c == '\'' || c == '"') {
      while (size < code.size() && code[size] != c) size += code[size] == '\\' ? 2 : 1;
      size = std::min(size, code.size());
      tokens->push_back({Token::kString, StringValue(code.substr(1, size - 1))});
      code.remove_prefix(std::min(size + 1, code.size()));
      member = false;
      continue;
    }
    if (IsName(c)) {
      while (size < code.size() && IsName(code[size])) ++size;
    } else if (code.size() > 1 && code[1] == '=' && IsOneOf(c, "=!<>")) {
      size = 2;
    }
    const std::string token(code.substr(0, size));
    if (member && (token == "role" || token == "content")) {
      tokens->back().value = "[";
      tokens->push_back({Token::kString, token});
      tokens->push_back({Token::kOther, "]"});
    } else {
      tokens->push_back({Token::kOther, token});
    }
    member = token == ".";
    code.remove_prefix(size);
  }
}

std::vector<Token> TokensOf(const std::vector<Part>& parts) {
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    if (part.kind == 0) {
      const std::string_view text = Stripped(part.text, i > 0 ? &parts[i - 1] : nullptr,
                                             i + 1 < parts.size() ? &parts[i + 1] : nullptr);
      if (text.empty()) continue;
      if (!tokens.empty() && tokens.back().kind == Token::kText) {
        tokens.back().value += text;  // a comment stood between
      } else {
        tokens.push_back({Token::kText, std::string(text)});
      }
    } else if (part.kind != '#') {
      tokens.push_back({Token::kOpen, std::string(1, part.kind)});
      AddTokens(part.text, &tokens);
      tokens.push_back({Token::kClose, ""});
    }
  }
  return tokens;
}

// The X of "<|im_start|>system\nX<|im_end|>\n"; empty when there is none or more than one.
std::string DefaultSystem(const std::vector<Token>& tokens) {
  std::string found;
  for (const Token& token : tokens) {
    std::string_view value = token.value;
    if (token.kind != Token::kString || !value.starts_with(kSystemBegin) ||
        !value.ends_with(kSystemEnd) || value.size() <= kSystemBegin.size() + kSystemEnd.size()) {
      continue;
    }
    value.remove_prefix(kSystemBegin.size());
    value.remove_suffix(kSystemEnd.size());
    if (!found.empty() && found != value) return "";
    found = value;
  }
  return found;
}

}  // namespace

TemplateForm FormOfTemplate(std::string_view jinja) {
  const std::string source = Newlines(jinja);
  std::vector<Token> tokens = TokensOf(PartsOf(source));
  TemplateForm form;
  form.default_system = DefaultSystem(tokens);
  constexpr char kMarks[] = {'t', '{', '}', '"', ' '};
  for (Token& token : tokens) {
    if (token.kind == Token::kString && !form.default_system.empty()) {
      const std::size_t at = token.value.find(form.default_system);
      if (at != std::string::npos) {
        token.value.replace(at, form.default_system.size(), 1, kDefaultMark);
      }
    }
    // Lengths make the form unambiguous, whatever the values hold.
    form.text += kMarks[token.kind];
    form.text += std::to_string(token.value.size()) + ":" + token.value;
  }
  return form;
}

}  // namespace thresher::model
