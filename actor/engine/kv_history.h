#pragma once

#include <cstddef>
#include <vector>

#include "common/data/trajectory.h"

namespace thresher::actor {

// What wrote the keys and values of a sequence's positions, in order of writing. A position that is
// computed again (after a preemption) by the version that wrote it is not mentioned again: row
// purity gives it the bits it had. By another version it is: as recomputed.
class KvHistory {
 public:
  // Positions [begin, end) were written by `version`; no position before `begin` is unwritten.
  void Wrote(std::size_t begin, std::size_t end, PolicyVersion version);
  // Goes on behind what another one had: each position before the last span's end is in a span.
  void Restore(std::vector<KvSpan> spans);
  std::uint32_t written() const { return written_; }  // positions ever written
  // Forgets what was written at `positions` and beyond.
  void Truncate(std::size_t positions);
  const std::vector<KvSpan>& spans() const { return spans_; }

 private:
  PolicyVersion WriterOf(std::uint32_t position) const;
  void Append(std::uint32_t position, PolicyVersion version, bool recomputed);

  std::vector<KvSpan> spans_;
  std::uint32_t written_ = 0;
};

// The token at `position`, the next one, was sampled by `version`.
void AppendSampled(std::uint32_t position, PolicyVersion version, std::vector<VersionSpan>& spans);

}  // namespace thresher::actor
