#include "tests/support/cuda_sim/block.h"

#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/support/cuda_sim/hopper.h"
#include "tests/support/fiber/fiber.h"

namespace cuda_sim {

void Die(const char* text) {
  std::fprintf(stderr, "cuda_sim: %s\n", text);
  std::abort();
}

namespace {

constexpr unsigned kWarp = 32, kMaxThreads = 1024;
constexpr std::size_t kMaxSharedBytes = 227 << 10;  // of a block on compute capability 9.0
constexpr std::size_t kPage = 4096;

// Room for a block's shared memory that ends at a page nobody may touch.
class SharedRoom {
 public:
  SharedRoom() {
    void* room = mmap(nullptr, kRoom + kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) Die("no room for shared memory");
    begin_ = static_cast<char*>(room);
    mprotect(begin_ + kRoom, kPage, PROT_NONE);
  }
  ~SharedRoom() { munmap(begin_, kRoom + kPage); }
  void* Fresh(std::size_t bytes) {
    // 128-byte aligned, as on a device.
    char* data = begin_ + kRoom - (bytes + 127) / 128 * 128;
    std::memset(data, 0xcb, bytes);
    return data;
  }
  char* begin() const { return begin_; }

 private:
  static constexpr std::size_t kRoom = (kMaxSharedBytes + kPage) / kPage * kPage;
  char* begin_;
};

enum class Wait : unsigned char { kNone, kBarrier, kLanes, kChange, kEnded };

struct Thread {
  test_support::Fiber fiber;
  Position at;
  unsigned index = 0;
  Wait wait = Wait::kNone;
  int barrier = 0;              // kBarrier
  unsigned mask = 0;            // kLanes
  std::uint64_t value = 0;      // given to the exchange
  std::uint64_t published = 0;  // of the last exchange that this lane was in
};

class Block {
 public:
  void Run(const Grid& grid, const Extent& index, bool backwards,
           const std::function<void()>& body) {
    body_ = &body;
    count_ = grid.threads.x * grid.threads.y * grid.threads.z;
    shared_ = room_.Fresh(grid.shared_bytes);
    shared_bytes_ = grid.shared_bytes;
    hopper::BeginBlock(/*late=*/!backwards);
    while (threads_.size() < count_) threads_.push_back(std::make_unique<Thread>());
    for (unsigned i = 0; i < count_; ++i) Prepare(grid, index, i);
    live_ = count_;
    for (unsigned left = count_; left > 0;) {
      bool moved = false;
      for (unsigned n = 0; n < count_; ++n) {
        Thread& thread = *threads_[backwards ? count_ - 1 - n : n];
        if (thread.wait != Wait::kNone) continue;
        moved = true;
        current_ = &thread;
        if (thread.fiber.Resume()) {
          thread.wait = Wait::kEnded;
          live_ = --left;
          WakeBarrier(0);
        }
      }
      if (!moved && left > 0 && !hopper::FinishOneCopy()) DieStuck();
    }
    hopper::EndBlock();
    current_ = nullptr;
  }

  Thread& current() {
    if (current_ == nullptr) Die("a kernel's function called outside a kernel");
    return *current_;
  }
  void* shared() { return shared_; }
  std::size_t shared_bytes() const { return shared_bytes_; }
  char* window() const { return room_.begin(); }

  void AwaitChange() {
    current().wait = Wait::kChange;
    current().fiber.Leave();
  }
  void Changed() {
    for (unsigned i = 0; i < count_; ++i) {
      if (threads_[i]->wait == Wait::kChange) threads_[i]->wait = Wait::kNone;
    }
  }

  void MeetBarrier(int id, int count) {
    Thread& self = current();
    self.wait = Wait::kBarrier;
    self.barrier = id;
    meetings_[static_cast<std::size_t>(id)].wanted = static_cast<unsigned>(count);
    ++meetings_[static_cast<std::size_t>(id)].waiting;
    WakeBarrier(id);
    if (self.wait != Wait::kNone) self.fiber.Leave();
  }

  std::uint64_t MeetLanes(unsigned mask, std::uint64_t value, int from) {
    Thread& self = current();
    const unsigned lane = self.index % kWarp, warp = self.index / kWarp * kWarp;
    if ((mask >> lane & 1) == 0) Die("an exchange whose mask leaves out the calling lane");
    if ((mask >> from & 1) == 0) Die("an exchange with a lane outside its mask");
    self.wait = Wait::kLanes;
    self.mask = mask;
    self.value = value;
    bool all = true;
    for (unsigned i = 0; i < kWarp; ++i) {
      if ((mask >> i & 1) == 0) continue;
      if (warp + i >= count_ || threads_[warp + i]->wait == Wait::kEnded) {
        Die("an exchange with a lane that has ended");
      }
      const Thread& other = *threads_[warp + i];
      all &= other.wait == Wait::kLanes && other.mask == mask;
    }
    if (all) {
      for (unsigned i = 0; i < kWarp; ++i) {
        if ((mask >> i & 1) == 0) continue;
        threads_[warp + i]->published = threads_[warp + i]->value;
        threads_[warp + i]->wait = Wait::kNone;
      }
    } else {
      self.fiber.Leave();
    }
    return threads_[warp + static_cast<unsigned>(from)]->published;
  }

 private:
  static void Main(void* block) { (*static_cast<Block*>(block)->body_)(); }

  void Prepare(const Grid& grid, const Extent& index, unsigned i) {
    Thread& thread = *threads_[i];
    thread.index = i;
    thread.at.thread = {i % grid.threads.x, i / grid.threads.x % grid.threads.y,
                        i / grid.threads.x / grid.threads.y};
    thread.at.block = index;
    thread.at.threads = grid.threads;
    thread.at.blocks = grid.blocks;
    thread.wait = Wait::kNone;
    thread.fiber.Reset(&Block::Main, this);
  }

  // Releases barrier `id` when all who should be there have come.
  void WakeBarrier(int id) {
    Meeting& meeting = meetings_[static_cast<std::size_t>(id)];
    const unsigned wanted = meeting.wanted == 0 ? live_ : meeting.wanted;
    if (meeting.waiting == 0 || meeting.waiting < wanted) return;
    meeting.waiting = 0;
    for (unsigned i = 0; i < count_; ++i) {
      Thread& thread = *threads_[i];
      if (thread.wait == Wait::kBarrier && thread.barrier == id) thread.wait = Wait::kNone;
    }
  }

  [[noreturn]] void DieStuck() {
    unsigned barrier = 0, lanes = 0, change = 0, ended = 0;
    for (unsigned i = 0; i < count_; ++i) {
      barrier += threads_[i]->wait == Wait::kBarrier;
      lanes += threads_[i]->wait == Wait::kLanes;
      change += threads_[i]->wait == Wait::kChange;
      ended += threads_[i]->wait == Wait::kEnded;
    }
    std::fprintf(stderr,
                 "cuda_sim: a meeting that not all reach: of %u threads %u wait at a barrier, %u "
                 "for lanes, %u at an mbarrier, %u have ended\n",
                 count_, barrier, lanes, change, ended);
    std::abort();
  }

  struct Meeting {
    unsigned waiting = 0, wanted = 0;
  };

  SharedRoom room_;
  std::array<Meeting, 16> meetings_{};  // by barrier; as many as a device has
  std::vector<std::unique_ptr<Thread>> threads_;
  const std::function<void()>* body_ = nullptr;
  unsigned count_ = 0, live_ = 0;
  void* shared_ = nullptr;
  std::size_t shared_bytes_ = 0;
  Thread* current_ = nullptr;
};

Block& TheBlock() {
  static thread_local Block block;
  return block;
}

}  // namespace

const Position& This() { return TheBlock().current().at; }
int LaneOfWarp() { return static_cast<int>(TheBlock().current().index % kWarp); }
unsigned ThreadIndex() { return TheBlock().current().index; }
void* SharedMemory() { return TheBlock().shared(); }
std::size_t SharedBytes() { return TheBlock().shared_bytes(); }
std::uint32_t SharedAddress(const void* at) {
  const auto* byte = static_cast<const char*>(at);
  const auto* begin = static_cast<const char*>(TheBlock().shared());
  if (byte < begin || byte > begin + TheBlock().shared_bytes()) {
    Die("an address outside the block's shared memory");
  }
  return static_cast<std::uint32_t>(byte - TheBlock().window());
}
unsigned char* SharedAt(std::uint32_t address) {
  char* byte = TheBlock().window() + address;
  (void)SharedAddress(byte);
  return reinterpret_cast<unsigned char*>(byte);
}
void AwaitChange() { TheBlock().AwaitChange(); }
void Changed() { TheBlock().Changed(); }
void Barrier(int id, int count) { TheBlock().MeetBarrier(id, count); }
std::uint64_t Exchange(unsigned mask, std::uint64_t value, int from_lane) {
  return TheBlock().MeetLanes(mask, value, from_lane);
}

void RunGrid(const Grid& grid, const std::function<void()>& thread) {
  const unsigned threads = grid.threads.x * grid.threads.y * grid.threads.z;
  if (threads == 0 || threads > kMaxThreads) Die("a block of no threads, or of more than 1024");
  if (grid.shared_bytes > kMaxSharedBytes) Die("a block with more shared memory than there is");
  Block& block = TheBlock();
  bool backwards = false;
  for (unsigned z = 0; z < grid.blocks.z; ++z) {
    for (unsigned y = 0; y < grid.blocks.y; ++y) {
      for (unsigned x = 0; x < grid.blocks.x; ++x, backwards = !backwards) {
        block.Run(grid, {x, y, z}, backwards, thread);
      }
    }
  }
}

}  // namespace cuda_sim
