#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/sim/random.h"

namespace thresher::sim {

// A file or a folder of a simulated disk, twice: as processes see it, and as it was when it was
// last synced, with the changes since then in their order. A power cut leaves some of these.
struct DiskNode {
  // One change of a file that no completed sync covers.
  struct Piece {
    std::uint64_t number = 0;  // grows over the disk
    int machine = 0;           // whose memory holds it
    std::uint64_t offset = 0;  // written to; or the new size, where `cuts`
    std::string bytes;
    bool cuts = false;
  };
  // One change of a folder. A name that is taken away, one that is given, or both at once.
  struct Naming {
    std::uint64_t number = 0;
    int machine = 0;
    std::string taken;
    std::string given;
    std::shared_ptr<DiskNode> node;  // that gets the name
  };
  using Names = std::map<std::string, std::shared_ptr<DiskNode>>;

  bool is_folder = false;
  int mode = 0644;
  const void* locked_by = nullptr;  // the open file that has the lock

  std::string bytes;  // of a file
  std::string synced_bytes;
  std::vector<Piece> pieces;

  Names names;  // of a folder
  Names synced_names;
  std::vector<Naming> namings;

  void Write(Piece piece);
  void Name(Naming naming);
  // All changes up to `number` have reached the disk.
  void Sync(std::uint64_t number);
  // A sync of all changes up to `number` failed, and the kernel gave the pages back: they can be
  // read, but no later sync writes them.
  void LosePages(std::uint64_t number);
  // The memory of `machine` is gone: of what it changed since the last sync `random` decides what
  // is there, in pieces of a sector. Tells what is not there, or not whole.
  struct Lost {
    std::uint64_t writes = 0, torn = 0, names = 0;
  };
  Lost CutPower(int machine, Random& random);
};

}  // namespace thresher::sim
