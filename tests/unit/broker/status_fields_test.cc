// status.json and its page say the same.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <sstream>

#include "broker/status_report.h"
#include "common/data/files.h"
#include "tests/support/source_folder.h"
#include "tests/unit/broker/fake_peers.h"
#include "tests/unit/broker/served_run.h"

namespace thresher::broker {
namespace {

using Json = nlohmann::json;

// Path to types, "a.b[].c" to {"number", "null"}.
using Fields = std::map<std::string, std::set<std::string>>;

Fields DocumentedFields() {
  std::istringstream in(ReadFile(SourceFolder() / "docs/status.md").value());
  Fields fields;
  bool table = false;
  for (std::string line; std::getline(in, line);) {
    table = (table && !line.empty()) || line.starts_with("| field ");
    if (!table || !line.starts_with("| `")) continue;
    const std::size_t end = line.find('`', 3), bar = line.find('|', end);
    std::istringstream types(line.substr(bar + 1, line.find('|', bar + 1) - bar - 1));
    for (std::string type; types >> type;) {
      if (type != "or") fields[line.substr(3, end - 3)].insert(type);
    }
  }
  return fields;
}

std::string TypeOf(const Json& json) {
  return json.is_string() ? "text" : json.is_object() ? "object" : json.type_name();
}

bool SamePath(std::string_view pattern, std::string_view path) {
  while (!pattern.empty() && !path.empty()) {
    const std::size_t p = std::min(pattern.find('.'), pattern.size());
    // What a `*` stands for may hold dots itself only at the end.
    std::size_t q = std::min(path.find('.'), path.size());
    if (pattern == "*") q = path.size();
    if (pattern.substr(0, p) != "*" && pattern.substr(0, p) != path.substr(0, q)) return false;
    pattern.remove_prefix(std::min(p + 1, pattern.size()));
    path.remove_prefix(std::min(q + 1, path.size()));
  }
  return pattern.empty() && path.empty();
}

// Checks every value against the page; collects the documented paths that were met.
class Comparison {
 public:
  Comparison() : fields_(DocumentedFields()) {}

  void Visit(const Json& json, const std::string& path) {
    const bool named = !path.empty() && Check(json, path);
    if (json.is_array()) {
      for (const Json& element : json) Visit(element, path + "[]");
    } else if (json.is_object()) {
      for (const auto& [key, value] : json.items()) {
        Visit(value, path.empty() ? key : path + "." + key);
      }
    } else {
      EXPECT_TRUE(named) << path << " is not on the page";
    }
  }
  std::set<std::string> Unmet() const {
    std::set<std::string> unmet;
    for (const auto& [path, types] : fields_) {
      if (!met_.contains(path)) unmet.insert(path);
    }
    return unmet;
  }

 private:
  bool Check(const Json& json, const std::string& path) {
    for (const auto& [pattern, types] : fields_) {
      if (!SamePath(pattern, path)) continue;
      EXPECT_TRUE(types.contains(TypeOf(json))) << path << " is " << json.dump();
      met_.insert(pattern);
      return true;
    }
    return false;
  }

  Fields fields_;
  std::set<std::string> met_;
};

TEST(StatusInterval, IsManyTimesWhatItTakesButAProcessThatWasStoppedIsNotSilentForLong) {
  using std::chrono::milliseconds;
  EXPECT_EQ(StatusInterval(milliseconds(0)), milliseconds(250));
  EXPECT_EQ(StatusInterval(milliseconds(1)), milliseconds(250));
  EXPECT_EQ(StatusInterval(milliseconds(20)), milliseconds(1200));
  EXPECT_EQ(StatusInterval(milliseconds(1500)), milliseconds(5000));
}

TEST(StatusFields, AreThoseOfThePage) {
  // One run with drops; a fault; both kinds of peers; to its end.
  ServedRun served({"broker.lookahead_steps=1"});
  Comparison comparison;
  FakePeer fault(served.config(), served.run(), H("another run"), wire::PeerRole::kActor, 9);
  FakePeer thief(served.config(), served.run(), served.run_id(), wire::PeerRole::kLearner, 1, 9);
  FakeActor actor(served.config(), served.run(), served.run_id(), 0);
  FakeLearner learner(served.config(), served.run(), served.run_id());
  // Of a peer without an engine, and of one without metrics.
  const std::set<std::string> never = {"actors[].counters.*", "learners[].counters.*",
                                       "actor_counters.*", "learner_metrics.*"};
  EXPECT_TRUE(ServedRun::Until([&] {
    const Json status = served.Status();
    if (status.empty()) return false;
    comparison.Visit(status, "");
    return comparison.Unmet() == never || status["finished"].get<bool>();
  }));
  std::string missing;
  for (const std::string& path : comparison.Unmet()) {
    if (!never.contains(path)) missing += path + " ";
  }
  EXPECT_EQ(missing, "") << "on the page, but in no status";
}

}  // namespace
}  // namespace thresher::broker
