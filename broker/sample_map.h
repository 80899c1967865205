#pragma once

#include <bit>
#include <cstddef>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "broker/group_key.h"

namespace thresher::broker {

// A map from samples to values in which the samples of neighbouring items lie side by side, for
// they come, are asked for and go together: a place in memory for each costs more than what is done
// with it. Takes the memory of all samples of an item up to the last one of its block. Plain data.
template <typename T>
class SampleMap {
 public:
  T* Find(const TrajectoryId& id) {
    return const_cast<T*>(std::as_const(*this).Find(id));  // null: not there
  }
  const T* Find(const TrajectoryId& id) const {
    const GroupKey item = GroupOf(id);
    auto found = blocks_.find(BlockOf(item));
    if (found == blocks_.end() || id.sample >= found->second.width) return nullptr;
    const Cell& cell = found->second.cells[IndexOf(found->second, item, id.sample)];
    return cell.there ? &cell.value : nullptr;
  }
  bool Contains(const TrajectoryId& id) const { return Find(id) != nullptr; }

  // What stands there, which is `value` if nothing did, and whether nothing did. Pointers to other
  // values are good no more.
  std::pair<T*, bool> Insert(const TrajectoryId& id, T value) {
    if (id.sample >= kWidestOfMany) KeepItemsApart();
    const GroupKey item = GroupOf(id);
    Block& block = BlockFor(BlockOf(item));
    if (id.sample >= block.width) Widen(block, std::size_t{id.sample} + 1);
    Cell& cell = block.cells[IndexOf(block, item, id.sample)];
    const bool added = !std::exchange(cell.there, true);
    if (added) {
      cell.value = std::move(value);
      ++block.size;
      ++size_;
    }
    return {&cell.value, added};
  }
  T& operator[](const TrajectoryId& id) { return *Insert(id, {}).first; }

  bool Erase(const TrajectoryId& id) { return Take(id).has_value(); }  // whether it was there
  // Erases it; nothing: it was not there.
  std::optional<T> Take(const TrajectoryId& id) {
    const GroupKey item = GroupOf(id);
    auto found = blocks_.find(BlockOf(item));
    if (found == blocks_.end() || id.sample >= found->second.width) return std::nullopt;
    Cell& cell = found->second.cells[IndexOf(found->second, item, id.sample)];
    std::optional<T> taken;
    if (cell.there) taken = std::move(cell.value);
    Clear(cell, found->second);
    if (found->second.size == 0) Discard(found);
    return taken;
  }
  void EraseGroup(const GroupKey& item) {
    auto found = blocks_.find(BlockOf(item));
    if (found == blocks_.end()) return;
    Block& block = found->second;
    for (std::size_t s = 0; s < block.width; ++s)
      Clear(block.cells[IndexOf(block, item, s)], block);
    if (block.size == 0) Discard(found);
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // visit(id, value), in no order.
  template <typename Visit>
  void ForEach(Visit&& visit) const {
    ForEachRow([&](const GroupKey& item, const Cell* row, std::size_t length) {
      for (std::uint32_t sample = 0; sample < length; ++sample) {
        if (!row[sample].there) continue;
        visit(TrajectoryId{item.stream, item.island, item.item, sample}, row[sample].value);
      }
    });
  }

  friend bool operator==(const SampleMap& a, const SampleMap& b) {
    bool equal = a.size_ == b.size_;
    a.ForEach([&](const TrajectoryId& id, const T& value) {
      const T* other = equal ? b.Find(id) : nullptr;
      equal = other != nullptr && *other == value;
    });
    return equal;
  }

  // A row for each item: its cells up to the last one that holds something.
  template <typename Io>
  void Fields(Io& io) {
    if constexpr (requires { io.Refuse(); }) {
      Read(io);
    } else if constexpr (requires { io.Take(); }) {
      Write(io);
    } else {  // changes what it likes
      std::unordered_map<GroupKey, std::vector<Cell>, GroupKeyHash> rows;
      ForEachRow([&](const GroupKey& item, const Cell* row, std::size_t length) {
        rows[item].assign(row, row + length);
      });
      io(rows);
      *this = {};
      for (const auto& [item, row] : rows) InsertRow(item, row);
    }
  }

 private:
  struct Cell {
    bool there = false;
    T value{};
    template <typename Io>
    void Fields(Io& io) {
      io(there, value);
    }
  };
  struct Block {
    std::size_t width = 0;    // cells of each item
    std::size_t size = 0;     // cells that hold something
    std::vector<Cell> cells;  // [items, width]
  };
  using Blocks = std::unordered_map<GroupKey, Block, GroupKeyHash>;
  // Blocks without anything in them, for others to come; a copy has none.
  struct Spare {
    std::vector<typename Blocks::node_type> nodes;
    Spare() = default;
    Spare(const Spare&) {}
    Spare(Spare&&) noexcept = default;
    Spare& operator=(const Spare& other) { return *this = Spare(other); }
    Spare& operator=(Spare&&) noexcept = default;
  };
  static constexpr unsigned kItemBits = 4;
  // Where items have more samples each lies by itself, or few of them would take the room of many.
  static constexpr std::uint32_t kWidestOfMany = 64;

  GroupKey BlockOf(GroupKey item) const {
    item.item >>= item_bits_;
    return item;
  }
  std::size_t PlaceOf(const GroupKey& item) const {
    return item.item & ((std::size_t{1} << item_bits_) - 1);
  }
  std::size_t IndexOf(const Block& block, const GroupKey& item, std::size_t sample) const {
    return PlaceOf(item) * block.width + sample;
  }
  bool Clear(Cell& cell, Block& block) {  // whether it held something
    if (!cell.there) return false;
    cell = {};
    --block.size;
    --size_;
    return true;
  }
  Block& BlockFor(const GroupKey& key) {
    if (auto found = blocks_.find(key); found != blocks_.end()) return found->second;
    if (spare_.nodes.empty()) return blocks_[key];
    typename Blocks::node_type node = std::move(spare_.nodes.back());
    spare_.nodes.pop_back();
    node.key() = key;
    return blocks_.insert(std::move(node)).position->second;
  }
  void Discard(typename Blocks::iterator block) {
    typename Blocks::node_type node = blocks_.extract(block);
    if (spare_.nodes.size() < blocks_.size()) {
      spare_.nodes.push_back(std::move(node));
    } else if (!spare_.nodes.empty()) {
      spare_.nodes.pop_back();
    }
  }
  void Widen(Block& block, std::size_t least) {
    if (item_bits_ == 0) {
      block.cells.resize(block.width = least);
      return;
    }
    const std::size_t items = std::size_t{1} << item_bits_;
    const std::size_t width = std::bit_ceil(least);
    std::vector<Cell> cells(items * width);
    for (std::size_t i = 0; i < block.cells.size(); ++i) {
      cells[i / block.width * width + i % block.width] = std::move(block.cells[i]);
    }
    block.cells = std::move(cells);
    block.width = width;
  }
  void KeepItemsApart() {
    if (item_bits_ == 0) return;
    SampleMap apart;
    apart.item_bits_ = 0;
    ForEach([&](const TrajectoryId& id, const T& value) { apart.Insert(id, value); });
    *this = std::move(apart);
  }
  // visit(item, row, length): its cells up to the last one that holds something, at least one.
  template <typename Visit>
  void ForEachRow(Visit&& visit) const {
    for (const auto& [key, block] : blocks_) {
      for (std::size_t i = 0; i < std::size_t{1} << item_bits_; ++i) {
        const Cell* row = block.cells.data() + i * block.width;
        std::size_t length = block.width;
        while (length > 0 && !row[length - 1].there) --length;
        if (length == 0) continue;
        visit(GroupKey{key.stream, key.island, key.item << item_bits_ | i}, row, length);
      }
    }
  }
  bool Knows(const GroupKey& item) const {
    auto found = blocks_.find(BlockOf(item));
    if (found == blocks_.end()) return false;
    const Block& block = found->second;
    for (std::size_t s = 0; s < block.width; ++s) {
      if (block.cells[IndexOf(block, item, s)].there) return true;
    }
    return false;
  }
  // From bytes that may say anything: a row must end with something, an item come once.
  template <typename Io>
  void Read(Io& io) {
    *this = {};
    std::uint64_t rows = 0;
    io(rows);
    for (; rows > 0 && io.ok(); --rows) {
      GroupKey item;
      std::vector<Cell> row;
      io(item, row);
      if (!io.ok()) return;
      if (row.empty() || !row.back().there || Knows(item)) return io.Refuse();
      InsertRow(item, row);
    }
  }
  void InsertRow(const GroupKey& item, const std::vector<Cell>& row) {
    for (auto sample = static_cast<std::uint32_t>(row.size()); sample-- > 0;) {  // the widest first
      if (!row[sample].there) continue;
      Insert({item.stream, item.island, item.item, sample}, row[sample].value);
    }
  }
  template <typename Io>
  void Write(Io& io) const {
    std::uint64_t rows = 0;
    ForEachRow([&](const GroupKey&, const Cell*, std::size_t) { ++rows; });
    io(rows);
    ForEachRow([&](const GroupKey& item, const Cell* row, std::size_t length) {
      io(item, std::uint64_t{length});
      for (std::size_t s = 0; s < length; ++s) io(row[s].there, row[s].value);
    });
  }

  Blocks blocks_;  // by item / 2^item_bits_
  Spare spare_;    // at most as many
  std::size_t size_ = 0;
  unsigned item_bits_ = kItemBits;
};

}  // namespace thresher::broker
