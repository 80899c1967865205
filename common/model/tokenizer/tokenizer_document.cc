#include "common/model/tokenizer/tokenizer_document.h"

#include <functional>

#include "common/model/json_fields.h"
#include "common/model/tokenizer/tokenizer_stages.h"

namespace thresher::model {
namespace {

// Json keeps an object's keys in a list, so that a large object costs the square of its size.
constexpr std::size_t kMostKeys = 4096;

constexpr char kVocabValue[] = "allowed: an id, a whole number from 0";
constexpr char kMergeValue[] = "allowed: \"left right\" or [\"left\", \"right\"]";

// Watches the parser: moves the entries of the two tables out of the document.
class Collector {
 public:
  Collector(TokenizerDocument* document, std::string origin)
      : document_(*document), origin_(std::move(origin)) {}

  // Whether the parser keeps what it shows; see nlohmann::json::parse with a callback.
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    if (!status_.ok()) return false;
    const auto at = static_cast<std::size_t>(depth);
    if (event == Json::parse_event_t::object_start) BeginObject(at);
    if (event == Json::parse_event_t::key && at <= 2) keys_[at - 1] = parsed.get<std::string>();
    const bool in_model = at >= 2 && keys_[0] == "model";
    if (in_model && keys_[1] == "vocab" && InTable(at, event)) return Vocab(at, event, parsed);
    if (in_model && keys_[1] == "merges" && InTable(at, event)) return Merges(at, event, parsed);
    if (at >= 1 && event == Json::parse_event_t::key) CountKey(at);
    return true;
  }
  const Status& status() const { return status_; }

 private:
  // The table begins with an event at depth 2; its elements lie at depth 3 and below.
  bool InTable(std::size_t at, Json::parse_event_t event) const {
    return at >= 3 || event == Json::parse_event_t::object_start ||
           event == Json::parse_event_t::array_start;
  }

  void Fail(const std::string& key, const std::string& what) {
    if (status_.ok()) status_ = InvalidArgument(origin_ + ": key '" + key + "' " + what);
  }

  // The parser gives the depth of what the object is in; its keys lie one deeper.
  void BeginObject(std::size_t depth) {
    counts_.resize(std::max(counts_.size(), depth + 2));
    counts_[depth + 1] = 0;
  }

  void CountKey(std::size_t depth) {
    counts_.resize(std::max(counts_.size(), depth + 1));
    if (++counts_[depth] > kMostKeys) Fail(keys_[0], "has thousands of keys; allowed: fewer");
  }

  bool Vocab(std::size_t at, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (at == 2) {
      if (event == Event::array_start) return true;  // refused by the reader of the document
      if (document_.has_vocab) Fail("model.vocab", "stands twice");
      document_.has_vocab = true;
      return true;
    }
    if (!document_.has_vocab) return false;
    if (event == Event::key && at == 3) {
      token_ = parsed.get<std::string>();
    } else if (event == Event::value && at == 3 && parsed.is_number_integer()) {
      document_.vocab.emplace_back(std::move(token_), parsed.get<std::int64_t>());
    } else {
      Fail("model.vocab", "has for " + Quoted(token_) + " something else; " + kVocabValue);
    }
    return false;
  }

  bool Merges(std::size_t at, Json::parse_event_t event, Json& parsed) {
    using Event = Json::parse_event_t;
    if (at == 2) {
      if (event == Event::object_start) return true;
      if (document_.has_merges) Fail("model.merges", "stands twice");
      document_.has_merges = true;
      return true;
    }
    if (!document_.has_merges) return false;
    if (at == 3 && event == Event::array_start) {
      pair_.clear();
      return true;
    }
    if (at == 3 && event == Event::array_end) {
      if (pair_.size() != 2) return BadMerge();
      document_.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
      return false;
    }
    if (event != Event::value || !parsed.is_string() || at > 4) return BadMerge();
    at == 4 ? pair_.push_back(std::move(parsed.get_ref<std::string&>()))
            : AddLine(parsed.get_ref<const std::string&>());
    return false;
  }

  void AddLine(const std::string& line) {
    if (line.starts_with("#version")) return;
    const std::size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      BadMerge();
      return;
    }
    document_.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }

  bool BadMerge() {
    Fail("model.merges[" + std::to_string(document_.merges.size()) + "]",
         std::string("is something else; ") + kMergeValue);
    return false;
  }

  TokenizerDocument& document_;
  std::string origin_;
  Status status_;
  std::string keys_[2];  // the keys on the way to where the parser is
  std::vector<std::size_t> counts_;  // by depth: keys of the object that is open there
  std::string token_;
  std::vector<std::string> pair_;
};

}  // namespace

Result<TokenizerDocument> ParseTokenizer(std::string_view text, const std::string& origin) {
  THRESHER_RETURN_IF_ERROR(CheckNesting(text, origin));
  TokenizerDocument document;
  Collector collector(&document, origin);
  try {
    document.json = Json::parse(text, std::ref(collector));
  } catch (const Json::exception& error) {
    THRESHER_RETURN_IF_ERROR(collector.status());
    return DataLoss(origin + ": not JSON: " + error.what());
  }
  THRESHER_RETURN_IF_ERROR(collector.status());
  if (!document.json.is_object()) {
    return InvalidArgument(origin + ": a JSON " + document.json.type_name() +
                           "; allowed: an object");
  }
  return document;
}

}  // namespace thresher::model
