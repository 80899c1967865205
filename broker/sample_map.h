#pragma once

#include <cstddef>
#include <unordered_map>
#include <utility>
#include <vector>

#include "broker/group_key.h"

namespace thresher::broker {

// A map from samples to values in which the samples of an item lie side by side, for they come, are
// asked for and go together. Takes the memory of all samples of an item up to its last one. Plain
// data.
template <typename T>
class SampleMap {
 public:
  T* Find(const TrajectoryId& id) {
    return const_cast<T*>(std::as_const(*this).Find(id));  // null: not there
  }
  const T* Find(const TrajectoryId& id) const {
    auto row = rows_.find(GroupOf(id));
    if (row == rows_.end() || id.sample >= row->second.size()) return nullptr;
    const Cell& cell = row->second[id.sample];
    return cell.there ? &cell.value : nullptr;
  }
  bool Contains(const TrajectoryId& id) const { return Find(id) != nullptr; }

  // What stands there, which is `value` if nothing did, and whether nothing did. Pointers to other
  // values of the item are good no more.
  std::pair<T*, bool> Insert(const TrajectoryId& id, T value) {
    std::vector<Cell>& row = rows_[GroupOf(id)];
    if (id.sample >= row.size()) row.resize(std::size_t{id.sample} + 1);
    Cell& cell = row[id.sample];
    const bool added = !std::exchange(cell.there, true);
    if (added) {
      cell.value = std::move(value);
      ++size_;
    }
    return {&cell.value, added};
  }
  T& operator[](const TrajectoryId& id) { return *Insert(id, {}).first; }

  bool Erase(const TrajectoryId& id) {  // whether it was there
    auto row = rows_.find(GroupOf(id));
    if (row == rows_.end()) return false;
    std::vector<Cell>& cells = row->second;
    if (id.sample >= cells.size() || !cells[id.sample].there) return false;
    cells[id.sample] = {};
    --size_;
    while (!cells.empty() && !cells.back().there) cells.pop_back();
    if (cells.empty()) rows_.erase(row);
    return true;
  }
  void EraseGroup(const GroupKey& group) {
    auto row = rows_.find(group);
    if (row == rows_.end()) return;
    for (const Cell& cell : row->second) size_ -= cell.there ? 1 : 0;
    rows_.erase(row);
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // visit(id, value), in no order.
  template <typename Visit>
  void ForEach(Visit&& visit) const {
    for (const auto& [group, row] : rows_) {
      for (std::uint32_t sample = 0; sample < row.size(); ++sample) {
        if (!row[sample].there) continue;
        visit(TrajectoryId{group.stream, group.island, group.item, sample}, row[sample].value);
      }
    }
  }

  friend bool operator==(const SampleMap&, const SampleMap&) = default;
  template <typename Io>
  void Fields(Io& io) {
    io(rows_);
    if constexpr (requires { io.Refuse(); }) {  // read, from bytes that may say anything
      if (!Count()) io.Refuse();
    }
  }

 private:
  struct Cell {
    bool there = false;
    T value{};
    friend bool operator==(const Cell&, const Cell&) = default;
    template <typename Io>
    void Fields(Io& io) {
      io(there, value);
    }
  };
  // False when a row ends with nothing, which none does here.
  bool Count() {
    size_ = 0;
    for (const auto& [group, row] : rows_) {
      if (row.empty() || !row.back().there) return false;
      for (const Cell& cell : row) size_ += cell.there ? 1 : 0;
    }
    return true;
  }

  std::unordered_map<GroupKey, std::vector<Cell>, GroupKeyHash> rows_;
  std::size_t size_ = 0;
};

}  // namespace thresher::broker
