#include <bit>

#include "common/comm/communicator.h"

namespace thresher::comm {
namespace {

struct Range {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t size() const { return end - begin; }
};

}  // namespace

// Reduce-scatter: at level d partners at distance 2^d hold the same range; the lower rank keeps its
// lower half, the other the upper one, and each adds the partner's part. After the last level every
// rank owns one range of the full sum; the way back hands the ranges round. An element is added by
// one rank only at each level, so all ranks end with the same bits.
Status TreeAllReduce(Communicator& comm, std::span<float> data, std::string_view operation) {
  if (!std::has_single_bit(comm.size())) {
    return InvalidArgument("tree all-reduce over " + std::to_string(comm.size()) +
                           " ranks; allowed: a power of two");
  }
  const std::uint32_t rank = comm.rank().value;
  std::vector<float> received((data.size() + 1) / 2);
  std::vector<Range> path;  // my range before each level
  Range mine{0, data.size()};
  for (std::uint32_t distance = 1; distance < comm.size(); distance *= 2) {
    path.push_back(mine);
    std::size_t middle = mine.begin + mine.size() / 2;
    bool lower = (rank & distance) == 0;
    Range keep = lower ? Range{mine.begin, middle} : Range{middle, mine.end};
    Range give = lower ? Range{middle, mine.end} : Range{mine.begin, middle};
    std::span<float> in(received.data(), keep.size());
    THRESHER_RETURN_IF_ERROR(comm.Exchange(LearnerRank(rank ^ distance),
                                           data.subspan(give.begin, give.size()), in, operation));
    for (std::size_t i = 0; i < in.size(); ++i) {
      float own = data[keep.begin + i];
      data[keep.begin + i] = lower ? own + in[i] : in[i] + own;
    }
    mine = keep;
  }
  for (std::uint32_t distance = comm.size() / 2; distance >= 1; distance /= 2) {
    Range whole = path.back();
    path.pop_back();
    bool lower = (rank & distance) == 0;
    Range other = lower ? Range{mine.end, whole.end} : Range{whole.begin, mine.begin};
    THRESHER_RETURN_IF_ERROR(comm.Exchange(LearnerRank(rank ^ distance),
                                           data.subspan(mine.begin, mine.size()),
                                           data.subspan(other.begin, other.size()), operation));
    mine = whole;
  }
  return Status::Ok();
}

}  // namespace thresher::comm
