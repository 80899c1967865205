#include "tests/support/sim/disk_node.h"

#include <algorithm>

namespace thresher::sim {
namespace {

constexpr std::size_t kSectorBytes = 512;

void Apply(const DiskNode::Piece& piece, std::string& bytes) {
  if (piece.cuts) {
    bytes.resize(piece.offset, '\0');
    return;
  }
  const std::size_t end = piece.offset + piece.bytes.size();
  if (bytes.size() < end) bytes.resize(end, '\0');
  bytes.replace(piece.offset, piece.bytes.size(), piece.bytes);
}

void Apply(const DiskNode::Naming& naming, DiskNode::Names& names) {
  if (!naming.taken.empty()) names.erase(naming.taken);
  if (!naming.given.empty()) names[naming.given] = naming.node;
}

// How much of what was not synced a power cut leaves.
enum class Luck { kNothing, kBeginning, kSome, kAll };

Luck DrawLuck(Random& random) { return static_cast<Luck>(random.Below(4)); }

// Whether change number `index` of `count` is there, `kept` being how many of a beginning are.
bool Survives(Luck luck, std::size_t index, std::size_t kept, Random& random) {
  switch (luck) {
    case Luck::kNothing:
      return false;
    case Luck::kBeginning:
      return index < kept;
    case Luck::kSome:
      return random.Chance(0.5);
    default:
      return true;
  }
}

// A part of `piece`: some of its sectors, those that are missing being old, or zero where the file
// grew over them.
void ApplyTorn(const DiskNode::Piece& piece, std::string& bytes, Random& random) {
  if (piece.cuts) return;
  const bool size_known = random.Chance(0.5);
  const double kept = random.Chance(0.3) ? 0 : 0.5;
  std::size_t at = 0;
  while (at < piece.bytes.size()) {
    const std::size_t to_sector = kSectorBytes - (piece.offset + at) % kSectorBytes;
    const std::size_t count = std::min(to_sector, piece.bytes.size() - at);
    DiskNode::Piece part;
    part.offset = piece.offset + at;
    part.bytes = piece.bytes.substr(at, random.Chance(0.2) ? random.Below(count) : count);
    if (random.Chance(kept)) Apply(part, bytes);
    at += count;
  }
  const std::size_t end = piece.offset + piece.bytes.size();
  if (size_known && bytes.size() < end) bytes.resize(end, '\0');
}

template <typename Change>
void EraseUpTo(std::vector<Change>& changes, std::uint64_t number) {
  auto first_left = std::find_if(changes.begin(), changes.end(),
                                 [&](const Change& change) { return change.number > number; });
  changes.erase(changes.begin(), first_left);
}

}  // namespace

void DiskNode::Write(Piece piece) {
  Apply(piece, bytes);
  pieces.push_back(std::move(piece));
}

void DiskNode::Name(Naming naming) {
  Apply(naming, names);
  namings.push_back(std::move(naming));
}

void DiskNode::Sync(std::uint64_t number) {
  for (const Piece& piece : pieces) {
    if (piece.number <= number) Apply(piece, synced_bytes);
  }
  for (const Naming& naming : namings) {
    if (naming.number <= number) Apply(naming, synced_names);
  }
  EraseUpTo(pieces, number);
  EraseUpTo(namings, number);
}

void DiskNode::LosePages(std::uint64_t number) { EraseUpTo(pieces, number); }

DiskNode::Lost DiskNode::CutPower(int machine, Random& random) {
  Lost lost;
  // Changes of other machines are in their memories; what they wrote goes on top again.
  const Luck luck = DrawLuck(random);
  const std::size_t kept = random.Below(std::max(pieces.size(), namings.size()) + 1);
  std::vector<Piece> others;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].machine != machine) {
      others.push_back(std::move(pieces[i]));
    } else if (Survives(luck, i, kept, random)) {
      Apply(pieces[i], synced_bytes);
    } else if (luck != Luck::kNothing && random.Chance(0.5)) {
      ApplyTorn(pieces[i], synced_bytes, random);
      ++lost.torn;
    } else {
      ++lost.writes;
    }
  }
  pieces = std::move(others);
  bytes = synced_bytes;
  for (const Piece& piece : pieces) Apply(piece, bytes);

  std::vector<Naming> other_namings;
  for (std::size_t i = 0; i < namings.size(); ++i) {
    if (namings[i].machine != machine) {
      other_namings.push_back(std::move(namings[i]));
    } else if (Survives(luck, i, kept, random)) {
      Apply(namings[i], synced_names);
    } else {
      ++lost.names;
    }
  }
  namings = std::move(other_namings);
  names = synced_names;
  for (const Naming& naming : namings) Apply(naming, names);
  return lost;
}

}  // namespace thresher::sim
