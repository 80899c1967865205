// mbarriers and tensor copies of the simulated device (hopper.h).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include "tests/support/cuda_sim/block.h"
#include "tests/support/cuda_sim/hopper.h"

namespace cuda_sim::hopper {
namespace {

constexpr int kMostBytes = (1 << 20) - 1;  // that an mbarrier can expect
constexpr std::uint64_t kMagic = 0x7e5502d1a90c41b3;

struct Map {  // in a CUtensorMap's place
  std::uint64_t magic;
  const unsigned char* data;
  std::int64_t columns, rows, stride_bytes;
  std::uint32_t box_columns, box_rows;
  bool swizzled;
};
static_assert(sizeof(Map) <= sizeof(CUtensorMap));

struct Barrier {
  int arrivals, pending;
  std::int64_t bytes = 0;  // expected and not yet written
  unsigned phase = 0;
};

struct Copy {
  Map map;
  std::uint32_t tile, barrier;
  std::int64_t column, row;
  std::uint32_t bytes() const { return map.box_columns * map.box_rows * 2; }
};

// Of 16 bytes, by a thread.
struct Piece {
  std::uint32_t to;
  const unsigned char* from;  // null: zeros
};
struct PiecesOfThread {
  std::deque<std::vector<Piece>> groups;  // committed
  std::vector<Piece> open;                // not yet
};

struct State {
  std::map<std::uint32_t, Barrier> barriers;
  std::vector<Copy> copies;                   // under way
  std::map<unsigned, PiecesOfThread> pieces;  // by thread
  std::vector<unsigned char> seen;            // shared memory as copies and products see it
  bool late = false;
  unsigned turn = 0;
};
State& The() {
  static thread_local State state;
  return state;
}

// The view of the asynchronous side, from the poison on.
unsigned char* Seen(std::uint32_t address) {
  auto& state = The();
  const std::uint32_t begin = SharedAddress(SharedMemory());
  if (state.seen.empty()) state.seen.assign(SharedBytes(), 0xcb);
  if (address < begin || address - begin >= state.seen.size()) {
    Die("a tile outside the block's shared memory");
  }
  return &state.seen[address - begin];
}

Barrier& At(std::uint32_t address) {
  const auto at = The().barriers.find(address);
  if (at == The().barriers.end()) Die("an mbarrier that was not initialised");
  return at->second;
}

void EndPhaseIfDone(Barrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.arrivals;
  Changed();
}

// 16 bytes of the matrix, zeros outside it.
void Fetch(const Copy& copy, std::int64_t column, std::int64_t row, unsigned char* into) {
  const Map& map = copy.map;
  std::memset(into, 0, 16);
  if (row < 0 || row >= map.rows) return;
  const std::int64_t begin = std::max<std::int64_t>(column, 0);
  const std::int64_t end = std::min(column + 8, map.columns);
  if (begin >= end) return;
  std::memcpy(into + (begin - column) * 2, map.data + row * map.stride_bytes + begin * 2,
              static_cast<std::size_t>(end - begin) * 2);
}

void Do(const Copy& copy) {
  unsigned char *const shared = SharedAt(copy.tile), *const seen = Seen(copy.tile);
  (void)Seen(copy.tile + copy.bytes() - 1);
  for (std::uint32_t row = 0; row < copy.map.box_rows; ++row) {
    for (std::uint32_t column = 0; column < copy.map.box_columns; column += 8) {
      std::uint32_t at = copy.tile + (row * copy.map.box_columns + column) * 2;
      if (copy.map.swizzled) at ^= (at >> 7 & 7) << 4;
      at -= copy.tile;
      Fetch(copy, copy.column + column, copy.row + row, seen + at);
      std::memcpy(shared + at, seen + at, 16);
    }
  }
  Barrier& barrier = At(copy.barrier);
  barrier.bytes -= copy.bytes();
  if (barrier.pending == 0 && barrier.bytes < 0)
    Die("a copy of more bytes than its mbarrier expects");
  EndPhaseIfDone(barrier);
}

// As ordinary writes of the thread: products see them behind a proxy fence.
void Do(const Piece& piece) {
  if (piece.from == nullptr) {
    std::memset(SharedAt(piece.to), 0, 16);
  } else {
    std::memcpy(SharedAt(piece.to), piece.from, 16);
  }
}

bool Touches(const std::vector<Piece>& pieces, std::uint32_t begin, std::uint32_t end) {
  return std::any_of(pieces.begin(), pieces.end(),
                     [&](const Piece& piece) { return begin < piece.to + 16 && piece.to < end; });
}

}  // namespace

CUresult EncodeTiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                     const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                     const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                     CUtensorMapSwizzle swizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const bool swizzled = swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  const auto limit = std::uint64_t{1} << 32;
  const bool fits = type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 && rank == 2 && data != nullptr &&
                    reinterpret_cast<std::uintptr_t>(map) % 64 == 0 &&
                    reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && sizes[0] > 0 &&
                    sizes[0] <= limit && sizes[1] > 0 && sizes[1] <= limit &&
                    strides[0] % 16 == 0 && strides[0] >= sizes[0] * 2 &&
                    strides[0] < std::uint64_t{1} << 40 && box[0] > 0 && box[0] <= 256 &&
                    box[1] > 0 && box[1] <= 256 && box[0] * 2 % 16 == 0 &&
                    (!swizzled || box[0] * 2 <= 128) && element_strides[0] == 1 &&
                    element_strides[1] == 1 && interleave == CU_TENSOR_MAP_INTERLEAVE_NONE;
  if (!fits) return CUDA_ERROR_INVALID_VALUE;
  const Map made{kMagic,
                 static_cast<const unsigned char*>(data),
                 static_cast<std::int64_t>(sizes[0]),
                 static_cast<std::int64_t>(sizes[1]),
                 static_cast<std::int64_t>(strides[0]),
                 box[0],
                 box[1],
                 swizzled};
  std::memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}

void InitBarrier(std::uint64_t* barrier, int arrivals) {
  const std::uint32_t address = SharedAddress(barrier);
  if (address % 8 != 0) Die("an mbarrier that is not 8-byte aligned");
  if (arrivals < 1) Die("an mbarrier for no arrivals");
  if (!The().barriers.emplace(address, Barrier{arrivals, arrivals}).second) {
    Die("an mbarrier initialised twice");
  }
}

void ArriveAt(std::uint64_t* at, int expected_bytes) {
  Barrier& barrier = At(SharedAddress(at));
  barrier.bytes += expected_bytes;
  if (expected_bytes < 0 || barrier.bytes > kMostBytes) Die("an mbarrier cannot expect so much");
  --barrier.pending;
  if (barrier.pending == 0 && barrier.bytes < 0)
    Die("a copy of more bytes than its mbarrier expects");
  EndPhaseIfDone(barrier);
}

void WaitFor(std::uint64_t* at, unsigned parity) {
  if (parity > 1) Die("an mbarrier's parity is 0 or 1");
  const std::uint32_t address = SharedAddress(at);
  while ((At(address).phase & 1) == parity) AwaitChange();
}

void CopyBoxTo(void* tile, const CUtensorMap& encoded, std::uint64_t* barrier, int column,
               int row) {
  Copy copy{{}, SharedAddress(tile), SharedAddress(barrier), column, row};
  std::memcpy(&copy.map, &encoded, sizeof copy.map);
  if (copy.map.magic != kMagic) Die("a copy by something that is no tensor map");
  if (copy.tile % 128 != 0) Die("a copy to a tile that is not 128-byte aligned");
  (void)At(copy.barrier);
  RequireNoCopyTo(copy.tile, copy.tile + copy.bytes());
  RequireNoProductOn(copy.tile, copy.tile + copy.bytes());
  if (!The().late) return Do(copy);
  (void)Seen(copy.tile + copy.bytes() - 1);
  std::memset(SharedAt(copy.tile), 0xcb, copy.bytes());
  std::memset(Seen(copy.tile), 0xcb, copy.bytes());
  The().copies.push_back(copy);
}

void FenceInit() { FenceProxy(); }

void FenceProxy() {
  if (SharedBytes() == 0) return;
  const std::uint32_t begin = SharedAddress(SharedMemory());
  (void)Seen(begin);
  std::memcpy(The().seen.data(), SharedMemory(), The().seen.size());
}

void CopyPiece(void* to, const void* from, bool there) {
  const std::uint32_t address = SharedAddress(to);
  if (address % 16 != 0) Die("a piece to an address that is not 16-byte aligned");
  if (reinterpret_cast<std::uintptr_t>(from) % 16 != 0) {
    Die("a piece from an address that is not 16-byte aligned");
  }
  (void)SharedAt(address + 16);
  RequireNoCopyTo(address, address + 16);
  RequireNoProductOn(address, address + 16);
  const Piece piece{address, there ? static_cast<const unsigned char*>(from) : nullptr};
  if (!The().late) Do(piece);
  if (The().late) std::memset(SharedAt(address), 0xcb, 16);
  The().pieces[ThreadIndex()].open.push_back(piece);
}

void CommitPieces() {
  PiecesOfThread& self = The().pieces[ThreadIndex()];
  self.groups.push_back(std::move(self.open));
  self.open.clear();
}

void AwaitPieceGroups(int pending) {
  PiecesOfThread& self = The().pieces[ThreadIndex()];
  while (self.groups.size() > static_cast<std::size_t>(pending)) {
    if (The().late)
      std::for_each(self.groups.front().begin(), self.groups.front().end(),
                    [](const Piece& piece) { Do(piece); });
    self.groups.pop_front();
  }
}

float Exp2(float x) {
  constexpr float kLeastNormal = 0x1p-126f;
  const float y = std::exp2(std::fabs(x) < kLeastNormal ? 0.0f : x);
  return y < kLeastNormal ? 0.0f : y;
}

void RequireNoPieceTo(std::uint32_t begin, std::uint32_t end) {
  for (const auto& [thread, pieces] : The().pieces) {
    bool touched = Touches(pieces.open, begin, end);
    for (const auto& group : pieces.groups) touched = touched || Touches(group, begin, end);
    if (touched) Die("a tile is used before a piece of it has been awaited");
  }
}

void RequireNoCopyTo(std::uint32_t begin, std::uint32_t end) {
  for (const Copy& copy : The().copies) {
    if (begin < copy.tile + copy.bytes() && copy.tile < end) {
      Die("a tile is used before the copy to it is done");
    }
  }
}

const unsigned char* AsyncView(std::uint32_t begin, std::uint32_t end) {
  (void)SharedAt(end);
  if (std::memcmp(Seen(begin), SharedAt(begin), end - begin) != 0) {
    Die("a product reads what a thread wrote without a proxy fence");
  }
  return Seen(begin);
}

void BeginBlock(bool late) {
  auto& state = The();
  state.late = late;
  state.seen.clear();
  state.barriers.clear();
  state.pieces.clear();
  BeginProducts();
}

bool FinishOneCopy() {
  auto& state = The();
  if (state.copies.empty()) return false;
  const std::size_t i = ++state.turn * 7 % state.copies.size();  // in no order to rely on
  const Copy copy = state.copies[i];
  state.copies.erase(state.copies.begin() + static_cast<std::ptrdiff_t>(i));
  Do(copy);
  return true;
}

void EndBlock() {
  auto& state = The();
  if (!state.copies.empty()) Die("a block ends before its copies are done");
  for (const auto& [thread, pieces] : state.pieces) {
    if (!pieces.open.empty() || !pieces.groups.empty()) {
      Die("a block ends with pieces that were not awaited");
    }
  }
  for (const auto& [address, barrier] : state.barriers) {
    if (barrier.bytes != 0) Die("a block ends while an mbarrier expects bytes");
  }
  EndProducts();
}

}  // namespace cuda_sim::hopper
