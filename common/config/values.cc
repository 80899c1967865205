// Values of keys: from text to field and back.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <type_traits>

#include "common/base/check.h"
#include "common/config/schema.h"

namespace thresher {

std::vector<std::string> ListItems(const std::string& text) {
  std::vector<std::string> items;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    const std::size_t first = item.find_first_not_of(' ');
    if (first != std::string::npos) {
      items.push_back(item.substr(first, item.find_last_not_of(' ') - first + 1));
    }
    begin = end + 1;
  }
  return items;
}

}  // namespace thresher

namespace thresher::config_internal {
namespace {

using Problem = std::optional<std::string>;

std::string NumberText(double value) {
  char text[32];
  auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return std::string(text, end);
}

// Large round bounds read better in full: 1000000, not 1e+06.
std::string BoundText(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) {
    return std::to_string(static_cast<long long>(value));
  }
  return NumberText(value);
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

template <typename Number>
bool ParseWhole(const std::string& text, Number& value) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && begin != end;
}

bool LooksLikeInteger(const std::string& text) {
  std::string digits = text.substr(text.starts_with('-') || text.starts_with('+') ? 1 : 0);
  // A leading zero is octal in YAML 1.1 and decimal in 1.2: refused rather than guessed.
  if (digits.empty() || (digits.size() > 1 && digits[0] == '0')) return false;
  return std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool LooksLikeNumber(const std::string& text) {
  double value = 0;
  std::string start = text.substr(text.starts_with('-') || text.starts_with('+') ? 1 : 0);
  if (start.empty() || !(start[0] == '.' || (start[0] >= '0' && start[0] <= '9'))) return false;
  return ParseWhole(text, value) && std::isfinite(value);
}

bool SetField(const KeySpec& key, const std::string& text, int* field) {
  int value = 0;
  if (!LooksLikeInteger(text) || !ParseWhole(text, value)) return false;
  if (value < key.min || value > key.max) return false;
  *field = value;
  return true;
}

bool SetField(const KeySpec&, const std::string& text, std::uint64_t* field) {
  return LooksLikeInteger(text) && ParseWhole(text, *field);
}

bool SetField(const KeySpec& key, const std::string& text, double* field) {
  double value = 0;
  if (!LooksLikeNumber(text) || !ParseWhole(text, value)) return false;
  if (value < key.min || value > key.max) return false;
  *field = value;
  return true;
}

bool SetField(const KeySpec&, const std::string& text, bool* field) {
  if (text != "true" && text != "false") return false;
  *field = text == "true";
  return true;
}

bool SetField(const KeySpec& key, const std::string& text, std::string* field) {
  bool control =
      std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; });
  if (control) return false;
  bool fits = key.choices.empty()
                  ? key.accepts(text)
                  : std::find(key.choices.begin(), key.choices.end(), text) != key.choices.end();
  if (fits) *field = text;
  return fits;
}

// Text that a reader of the file would take for something else than text.
bool LooksUntyped(const std::string& text) {
  static const std::vector<std::string> kWords = {"true", "false", "null", "~", "yes", "no"};
  return LooksLikeNumber(text) || std::find(kWords.begin(), kWords.end(), text) != kWords.end();
}

// For messages: control characters visible, never longer than a line.
std::string Shown(const std::string& text) {
  std::string out;
  for (unsigned char c : text.substr(0, 80)) out += c < 32 || c == 127 ? '?' : static_cast<char>(c);
  return text.size() > 80 ? out + "..." : out;
}

}  // namespace

std::string TypeName(const KeySpec& key) {
  Config config;
  switch (key.field(config).index()) {
    case 0:
    case 1:
      return "integer";
    case 2:
      return "number";
    case 3:
      return "boolean";
    default:
      return "text";
  }
}

std::string AllowedText(const KeySpec& key) {
  Config config;
  switch (key.field(config).index()) {
    case 0:
    case 2:
      return BoundText(key.min) + " to " + BoundText(key.max);
    case 1:
      return "0 to 18446744073709551615";
    case 3:
      return "true, false";
    default:
      break;
  }
  if (key.choices.empty()) return key.accepted;
  std::string out;
  for (const std::string& choice : key.choices) out += (out.empty() ? "" : ", ") + choice;
  return out;
}

std::string ValueText(const KeySpec& key, const Config& config) {
  Config copy = config;
  return std::visit(
      [](auto* field) -> std::string {
        using T = std::remove_pointer_t<decltype(field)>;
        if constexpr (std::is_same_v<T, bool>)
          return *field ? "true" : "false";
        else if constexpr (std::is_same_v<T, double>)
          return NumberText(*field);
        else if constexpr (std::is_same_v<T, std::string>)
          return Quoted(*field);
        else
          return std::to_string(*field);
      },
      key.field(copy));
}

Problem SetValue(const KeySpec& key, const YamlEntry& entry, Config& config) {
  std::string type = TypeName(key);
  std::string allowed =
      "; allowed: " + (type == "text" || type == "boolean" ? "" : type + ", ") + AllowedText(key);
  if (entry.kind == YamlEntry::Kind::kNull) return "no value" + allowed;
  const bool listed = key.list && entry.kind == YamlEntry::Kind::kList && !entry.text.empty();
  if (entry.kind == YamlEntry::Kind::kList && !listed) return "a list or nested keys" + allowed;
  bool quoted = entry.kind == YamlEntry::Kind::kQuoted;
  if (type != "text" && quoted) {
    return "value \"" + Shown(entry.text) + "\" is text" + allowed + ", without quotes";
  }
  if (type == "text" && !quoted && !listed && LooksUntyped(entry.text)) {
    return "value '" + entry.text + "' is not text" + allowed + "; put it in quotes if it is meant";
  }
  bool set =
      std::visit([&](auto* field) { return SetField(key, entry.text, field); }, key.field(config));
  if (set) return std::nullopt;
  return "value '" + Shown(entry.text) + "'" + allowed;
}

Config DefaultConfig() {
  Config config;
  for (const KeySpec& key : Schema()) {
    YamlEntry::Kind kind =
        TypeName(key) == "text" ? YamlEntry::Kind::kQuoted : YamlEntry::Kind::kPlain;
    Problem problem = SetValue(key, {key.path, kind, key.default_value, 0}, config);
    THRESHER_CHECK(!problem, key.path + ": default: " + problem.value_or(""));
  }
  return config;
}

}  // namespace thresher::config_internal
