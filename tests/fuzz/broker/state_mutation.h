#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "broker/state_bytes.h"
#include "tests/fuzz/wire/frame_mutation.h"

namespace thresher::broker {

// The records that a state holds, field by field.
template <typename Io>
void Fields(Io& io, wire::ItemsIssued& v) {
  io(v.stream, v.island, v.first_item, v.items, v.samples, v.step, v.round, v.version);
}
template <typename Io>
void Fields(Io& io, wire::BatchComposed& v) {
  io(v.lineage, v.step, v.digest, v.ids, v.loss_tokens);
}
template <typename Io>
void Fields(Io& io, wire::StepCommitted& v) {
  io(v.lineage, v.step, v.batch_digest, v.chain, v.state_hash, v.trained_tokens, v.retrained);
}
template <typename Io>
void Fields(Io& io, wire::VersionPublished& v) {
  io(v.version, v.hash, v.bytes);
}
template <typename Io>
void Fields(Io& io, wire::StepsDurable& v) {
  io(v.lineage, v.step, v.folder, v.manifest_hash, v.chain);
}

// Walks the fields of a state as StateReader does, and gives one of them another value: a number, a
// flag, or how many entries a container has and under which keys.
class StateMutator {
 public:
  struct Target {
    std::size_t part = 0;  // of the state's own fields
    std::size_t spot = 0;  // in it
  };
  // Changes nothing: finds out how many spots each part has.
  StateMutator() = default;
  StateMutator(fuzz::Recipe& recipe, Target target) : recipe_(&recipe), target_(target) {}

  const std::vector<std::size_t>& spots() const { return spots_; }

  template <typename... Ts>
  void operator()(Ts&... values) {
    ++depth_;
    (Part(values), ...);
    --depth_;
  }

 private:
  template <typename T>
  void Part(T& value) {
    if (depth_ == 1) spots_.push_back(0);
    Visit(value);
  }
  bool Hit() {
    const std::size_t spot = spots_.back()++;
    return recipe_ != nullptr && spots_.size() == target_.part + 1 && spot == target_.spot;
  }
  // Near the old one, a limit, a number that stood before it, or any.
  std::uint64_t Number(std::uint64_t old) {
    switch (recipe_->Below(8)) {
      case 0:
        return 0;
      case 1:
        return ~std::uint64_t{0};
      case 2:
        return old ^ std::uint64_t{1} << recipe_->Below(64);
      case 3:
        return last_;
      case 4:
        return old - 1;
      case 5:
        return recipe_->U64();
      default:
        return old + 1 + recipe_->Below(4);
    }
  }

  template <typename T>
  void Visit(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      if (Hit()) value = !value;
    } else if constexpr (std::is_enum_v<T>) {
      if (Hit()) value = static_cast<T>(recipe_->Below(Largest(T{}) + 1));
    } else if constexpr (std::is_unsigned_v<T>) {
      if (Hit()) value = static_cast<T>(Number(value));
      last_ = value;
    } else if constexpr (std::is_same_v<T, double>) {
      if (Hit()) value = std::bit_cast<double>(Number(std::bit_cast<std::uint64_t>(value)));
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (Hit()) value.resize(recipe_->Below(9));
    } else if constexpr (std::is_array_v<T>) {
      for (auto& element : value) Visit(element);
    } else {
      VisitOther(value);
    }
  }
  template <typename T, std::size_t kSize>
  void VisitOther(std::array<T, kSize>& values) {
    for (T& value : values) Visit(value);
  }
  template <typename T>
  void VisitOther(std::vector<T>& values) {
    if (Hit()) {
      Resize(values);
    } else {
      for (T& value : values) Visit(value);
    }
  }
  template <typename T>
  void Resize(std::vector<T>& values) {
    const std::size_t at = values.empty() ? 0 : recipe_->Below(values.size());
    switch (values.empty() ? 0 : recipe_->Below(4)) {
      case 0:
        values.emplace_back();
        break;
      case 1:
        values.erase(values.begin() + at);
        break;
      case 2:
        values.push_back(T(values[at]));
        break;
      default:
        std::swap(values[at], values.back());
    }
  }
  template <typename A, typename B>
  void VisitOther(std::pair<A, B>& pair) {
    Visit(pair.first);
    Visit(pair.second);
  }
  template <typename T>
  void VisitOther(T& value) {
    if constexpr (requires { typename T::mapped_type; }) {
      if (Hit()) return Rekey(value);
      for (auto& [key, mapped] : value) Visit(mapped);
    } else if constexpr (requires { value.Fields(*this); }) {
      value.Fields(*this);
    } else {
      Fields(*this, value);
    }
  }
  // Takes an entry out, gives it another key, or copies it there.
  template <typename Map>
  void Rekey(Map& map) {
    if (map.empty()) return;
    auto entry = std::next(map.begin(), recipe_->Below(map.size()));
    typename Map::key_type key = entry->first;
    typename Map::mapped_type value = entry->second;
    const std::size_t how = recipe_->Below(4);
    if (how != 0) map.erase(entry);
    if (how == 1) return;
    StateMutator count;
    count(key);
    const std::size_t spots = count.spots().front();
    StateMutator other(*recipe_, {0, recipe_->Below(spots)});
    other(key);
    map.try_emplace(key, value);
  }

  fuzz::Recipe* recipe_ = nullptr;
  Target target_;
  std::vector<std::size_t> spots_;
  int depth_ = 0;
  std::uint64_t last_ = 0;
};

// One field of the state, as the recipe says.
inline void Mutate(RunState& state, fuzz::Recipe& recipe) {
  StateMutator count;
  state.Fields(count);
  StateMutator::Target target;
  target.part = recipe.Below(count.spots().size());
  target.spot = recipe.Below(std::max<std::size_t>(count.spots()[target.part], 1));
  StateMutator mutator(recipe, target);
  state.Fields(mutator);
}

}  // namespace thresher::broker
