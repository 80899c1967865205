#include "common/config/yaml_entries.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <set>
#include <sstream>

namespace thresher::config_internal {
namespace {

// Far beyond any configuration; aliases could otherwise make a short file endless.
constexpr std::size_t kMaxBytes = 1 << 20;
constexpr std::size_t kMaxEntries = 4096;
constexpr int kMaxDepth = 4;

class Flattener {
 public:
  explicit Flattener(YamlEntries& out) : out_(out) {}

  void Visit(const YAML::Node& node, const std::string& path, int depth) {
    if (out_.entries.size() >= kMaxEntries) return;
    if (node.IsMap() && depth < kMaxDepth) return VisitMap(node, path, depth);
    YamlEntry entry{path, YamlEntry::Kind::kPlain, "", LineOf(node)};
    if (node.IsScalar()) {
      entry.text = node.Scalar();
      bool plain = node.Tag() == "?" || node.Tag().empty();
      if (!plain && node.Tag() != "!") {
        Problem(node, path + ": tag '" + node.Tag() + "'; allowed: no tags");
      }
      if (!plain) entry.kind = YamlEntry::Kind::kQuoted;
    } else {
      entry.kind = node.IsNull() ? YamlEntry::Kind::kNull : YamlEntry::Kind::kList;
      if (node.IsSequence()) entry.text = JoinedItems(node);
    }
    out_.entries.push_back(std::move(entry));
    if (out_.entries.size() == kMaxEntries) Problem(node, "more than 4096 values in one file");
  }

 private:
  static int LineOf(const YAML::Node& node) {
    return node.Mark().is_null() ? 0 : node.Mark().line + 1;
  }
  void Problem(const YAML::Node& node, std::string text) {
    out_.problems.push_back({LineOf(node), std::move(text)});
  }

  // "" where one of them is not a text without commas.
  static std::string JoinedItems(const YAML::Node& list) {
    std::string out;
    for (const auto& item : list) {
      if (!item.IsScalar() || item.Scalar().find(',') != std::string::npos) return "";
      out += (out.empty() ? "" : ", ") + item.Scalar();
    }
    return out;
  }

  void VisitMap(const YAML::Node& node, const std::string& path, int depth) {
    std::set<std::string> seen;
    for (const auto& child : node) {
      if (!child.first.IsScalar()) {
        Problem(child.first, "a key that is not text; allowed: names");
        continue;
      }
      const std::string& key = child.first.Scalar();
      std::string child_path = path.empty() ? key : path + "." + key;
      if (!seen.insert(key).second) {
        Problem(child.first, child_path + ": given twice; allowed: once");
        continue;
      }
      Visit(child.second, child_path, depth + 1);
    }
  }

  YamlEntries& out_;
};

class IgnoreEvents : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// Whether anything follows the first document. YAML::LoadAll cannot be asked: on text that begins
// with ',' yaml-cpp 0.7 gives empty documents without end.
bool HasMoreThanOneDocument(const std::string& text) {
  std::istringstream in(text);
  YAML::Parser parser(in);
  IgnoreEvents ignore;
  return parser.HandleNextDocument(ignore) && parser.HandleNextDocument(ignore);
}

}  // namespace

YamlEntries ReadYamlEntries(const std::string& text) {
  YamlEntries out;
  if (text.size() > kMaxBytes) {
    out.problems.push_back({0, "a file of " + std::to_string(text.size()) +
                                   " bytes; allowed: up to " + std::to_string(kMaxBytes)});
    return out;
  }
  try {
    if (HasMoreThanOneDocument(text)) {
      out.problems.push_back({0, "more than one YAML document; allowed: one"});
      return out;
    }
    YAML::Node document = YAML::Load(text);
    if (document.IsNull()) return out;
    if (!document.IsMap()) {
      out.problems.push_back({1, "not a YAML mapping; allowed: `key: value` lines"});
      return out;
    }
    Flattener(out).Visit(document, "", 0);
  } catch (const YAML::Exception& error) {
    int line = error.mark.is_null() ? 0 : error.mark.line + 1;
    out.problems.push_back({line, "YAML syntax: " + error.msg});
  }
  return out;
}

YamlEntries ReadYamlOverride(const std::string& path, const std::string& text) {
  YamlEntries out;
  if (text.empty()) {
    out.entries.push_back({path, YamlEntry::Kind::kQuoted, "", 0});
    return out;
  }
  try {
    YAML::Node node = YAML::Load(text);
    if (node.IsMap()) {
      out.problems.push_back({0, path + ": value '" + text + "'; allowed: one scalar"});
      return out;
    }
    Flattener(out).Visit(node, path, kMaxDepth);
    for (YamlEntry& entry : out.entries) entry.line = 0;
  } catch (const YAML::Exception& error) {
    out.problems.push_back({0, path + ": value '" + text + "': YAML syntax: " + error.msg});
  }
  return out;
}

}  // namespace thresher::config_internal
