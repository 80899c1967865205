#include "common/data/run_identity.h"

#include "common/base/hash.h"

namespace thresher {
namespace {

// The fields with their names, in the order in which they are hashed.
template <typename Visitor>
void VisitNumerics(const RunIdentity& identity, Visitor&& visit) {
  visit("backend", identity.backend);
  visit("architecture", identity.architecture);
  visit("kernel_set", identity.kernel_set);
  visit("weight_type", identity.weight_type);
  visit("compute_type", identity.compute_type);
  visit("kv_type", identity.kv_type);
  visit("gemm_cut", std::uint64_t{identity.gemm_cut});
  visit("attention_split", std::uint64_t{identity.attention_split});
  visit("grad_leaves", std::uint64_t{identity.grad_leaves});
}

template <typename Visitor>
void VisitAll(const RunIdentity& identity, Visitor&& visit) {
  VisitNumerics(identity, visit);
  visit("build", identity.build);
  visit("model_shape", identity.model_shape);
  visit("tokenizer", identity.tokenizer);
  visit("task", identity.task);
  visit("result_keys", identity.result_keys);
  visit("run_seed", identity.run_seed);
}

struct HashField {
  Hasher128& hasher;
  void operator()(const char*, const std::string& text) {
    hasher.UpdateU64(text.size());
    hasher.Update(text);
  }
  void operator()(const char*, std::uint64_t number) { hasher.UpdateU64(number); }
  void operator()(const char*, const Hash128& hash) { hasher.UpdateHash(hash); }
};

struct ListField {
  std::vector<std::pair<std::string, std::string>>& fields;
  void operator()(const char* name, const std::string& text) { fields.emplace_back(name, text); }
  void operator()(const char* name, std::uint64_t number) {
    fields.emplace_back(name, std::to_string(number));
  }
  void operator()(const char* name, const Hash128& hash) {
    fields.emplace_back(name, hash.ToString());
  }
};

std::vector<std::pair<std::string, std::string>> Fields(const RunIdentity& identity) {
  std::vector<std::pair<std::string, std::string>> fields;
  VisitAll(identity, ListField{fields});
  return fields;
}

}  // namespace

Hash128 RunIdentity::Hash() const {
  Hasher128 hasher;
  hasher.Update("thresher.run_identity.1");
  VisitAll(*this, HashField{hasher});
  return hasher.Finish();
}

Hash128 RunIdentity::NumericsHash() const {
  Hasher128 hasher;
  hasher.Update("thresher.numerics.1");
  VisitNumerics(*this, HashField{hasher});
  return hasher.Finish();
}

bool RunIdentity::DiffersInNumericsAlone(const RunIdentity& other) const {
  if (NumericsHash() == other.NumericsHash()) return false;
  RunIdentity same = other;
  same.backend = backend;
  same.architecture = architecture;
  same.kernel_set = kernel_set;
  same.weight_type = weight_type;
  same.compute_type = compute_type;
  same.kv_type = kv_type;
  same.gemm_cut = gemm_cut;
  same.attention_split = attention_split;
  same.grad_leaves = grad_leaves;
  return same == *this;
}

std::string RunIdentity::Difference(const RunIdentity& other) const {
  auto ours = Fields(*this);
  auto theirs = Fields(other);
  std::string text;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    if (ours[i].second == theirs[i].second) continue;
    if (!text.empty()) text += "; ";
    text += ours[i].first + ": ours '" + ours[i].second + "', theirs '" + theirs[i].second + "'";
  }
  return text;
}

}  // namespace thresher
