#include "learner/gather.h"

#include <algorithm>

namespace thresher::learner {

Result<std::vector<std::string>> GatherBlobs(comm::Communicator& comm, const std::string& mine,
                                             std::string_view operation) {
  if (comm.size() == 1) return std::vector<std::string>{mine};
  std::uint64_t size = mine.size();
  std::vector<std::uint64_t> sizes(comm.size());
  THRESHER_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(&size, 1)),
                                          std::as_writable_bytes(std::span(sizes)), operation));
  std::size_t widest = *std::max_element(sizes.begin(), sizes.end());
  if (widest == 0) return std::vector<std::string>(comm.size());
  std::string padded = mine;
  padded.resize(widest);
  std::string all(widest * comm.size(), '\0');
  THRESHER_RETURN_IF_ERROR(comm.AllGather(std::as_bytes(std::span(padded)),
                                          std::as_writable_bytes(std::span(all)), operation));
  std::vector<std::string> blobs;
  for (std::size_t r = 0; r < comm.size(); ++r) blobs.push_back(all.substr(r * widest, sizes[r]));
  return blobs;
}

}  // namespace thresher::learner
