#include "common/model/trained.h"

#include <algorithm>

#include "common/model/layout.h"

namespace thresher::model {
namespace {

// The names of a model, those of its layers once.
std::string NamesText(const ModelConfig& model) {
  std::string text;
  for (const ParameterInfo& info : ParameterList(model)) {
    const std::string layer = "model.layers.";
    std::string name = info.name;
    if (name.starts_with(layer)) {
      if (!name.starts_with(layer + "0.")) continue;
      if (model.layers > 1) name.replace(layer.size(), 1, "0-" + std::to_string(model.layers - 1));
    }
    text += (text.empty() ? "" : ", ") + name;
  }
  return text;
}

Result<std::vector<bool>> FrozenOf(const std::string& patterns, const ModelConfig& model) {
  const std::vector<ParameterInfo> list = ParameterList(model);
  const std::vector<std::string> items = ListItems(patterns);
  if (items.empty()) return std::vector<bool>();
  std::vector<bool> frozen(list.size());
  for (const std::string& pattern : items) {
    bool found = false;
    for (std::size_t i = 0; i < list.size(); ++i) {
      if (!MatchesPattern(pattern, list[i].name)) continue;
      frozen[i] = found = true;
    }
    if (found) continue;
    return InvalidArgument("learner.freeze: '" + pattern +
                           "' names no parameter; allowed: names and patterns of " +
                           NamesText(model));
  }
  if (std::ranges::find(frozen, false) != frozen.end()) return frozen;
  return InvalidArgument("learner.freeze: value '" + patterns +
                         "'; allowed: what leaves a parameter to train");
}

}  // namespace

bool MatchesPattern(const std::string& pattern, const std::string& name) {
  std::size_t p = 0, n = 0, star = std::string::npos, retry = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++retry;  // the star takes one more
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string::npos;
}

Result<Trained> Trained::Of(const Config& config, const ModelConfig& model) {
  Trained trained;
  THRESHER_ASSIGN_OR_RETURN(trained.frozen, FrozenOf(config.learner.freeze, model));
  if (!config.lora.on()) return trained;
  THRESHER_ASSIGN_OR_RETURN(trained.lora, Lora::Make(config.lora, model, trained.frozen));
  return trained;
}

std::vector<ParameterInfo> Trained::List(const ModelConfig& model) const {
  std::vector<ParameterInfo> list;
  std::size_t ordinal = 0;
  for (ParameterInfo& info : ParameterList(model)) {
    if (frozen.empty() || !frozen[ordinal]) list.push_back(std::move(info));
    ++ordinal;
  }
  return list;
}

GradientNeeds NeedsOf(const ModelConfig& model, const std::vector<ParameterInfo>& list) {
  const Layout layout = MakeLayout(model);
  const auto within = [&](std::size_t begin, std::size_t end) {
    return std::ranges::any_of(
        list, [&](const ParameterInfo& p) { return p.offset >= begin && p.offset < end; });
  };
  const std::size_t matrix = static_cast<std::size_t>(model.vocab) * std::size_t(model.width);
  GradientNeeds needs;
  needs.embedding = within(layout.embedding, layout.embedding + matrix);
  needs.head = within(layout.head, layout.head + matrix);
  const auto width = static_cast<std::size_t>(model.width);
  const auto q = static_cast<std::size_t>(model.q_width());
  const std::size_t qkv = (q + 2 * static_cast<std::size_t>(model.kv_width())) * width;
  const auto ffn = static_cast<std::size_t>(model.ffn_width);
  for (const LayerLayout& layer : layout.layers) {
    LayerNeeds own;
    own.qkv = within(layer.qkv, layer.qkv + qkv);
    own.o = within(layer.o, layer.o + width * q);
    own.gate_up = within(layer.gate_up, layer.gate_up + 2 * ffn * width);
    own.down = within(layer.down, layer.down + width * ffn);
    own.any = within(layer.input_norm, layer.down + width * ffn);
    needs.layers.push_back(own);
  }
  return needs;
}

}  // namespace thresher::model
