#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "common/base/status.h"
#include "common/comm/communicator.h"

namespace thresher::learner {

// The blobs of all ranks, in rank order, on every rank. Lengths may differ.
Result<std::vector<std::string>> GatherBlobs(comm::Communicator& comm, const std::string& mine,
                                             std::string_view operation);

// Plain values written one after another; both ends run the same program.
class BlobWriter {
 public:
  template <typename T>
  void Put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class BlobReader {
 public:
  explicit BlobReader(std::string_view bytes) : bytes_(bytes) {}
  template <typename T>
  T Get() {
    static_assert(std::is_trivially_copyable_v<T>);
    THRESHER_CHECK(bytes_.size() >= sizeof(T), "a gathered blob is too short");
    T value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return value;
  }
  bool done() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

}  // namespace thresher::learner
