#pragma once

#include <cstddef>
#include <map>
#include <mutex>

namespace cuda_sim {

// Memory of the simulated device: each piece begins poisoned, ends at a page that nobody may touch,
// and can be touched at all only while it is open, which it is for the device alone. So host code
// that follows a device pointer ends the process, as on a real machine. Thread-safe.
class DeviceMemory {
 public:
  // Null: no room within the limit.
  void* Take(std::size_t bytes);
  // False: not the beginning of a piece.
  bool Give(void* data);
  // Whether [data, data + bytes) lies in one piece.
  bool Holds(const void* data, std::size_t bytes) const;
  std::size_t used_bytes() const;
  // Makes every piece accessible, or not.
  void Open();
  void Close();

 private:
  struct Piece {
    char* room;  // whole pages, one more behind them
    std::size_t room_bytes, bytes;
  };
  void Protect(const Piece& piece, bool open) const;

  mutable std::mutex mutex_;
  std::map<const char*, Piece> pieces_;  // by first byte
  std::size_t used_ = 0;
  bool open_ = false;
};

}  // namespace cuda_sim
