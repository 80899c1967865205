#include "actor/engine/kv_history.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace thresher::actor {

PolicyVersion KvHistory::WriterOf(std::uint32_t position) const {
  for (auto span = spans_.rbegin(); span != spans_.rend(); ++span) {
    if (span->begin <= position && position < span->end) return span->version;
  }
  THRESHER_CHECK(false, "a KV position that nothing wrote");
}

void KvHistory::Append(std::uint32_t position, PolicyVersion version, bool recomputed) {
  if (!spans_.empty()) {
    KvSpan& last = spans_.back();
    if (last.end == position && last.version == version && last.recomputed == recomputed) {
      ++last.end;
      return;
    }
  }
  spans_.push_back({position, position + 1, version, recomputed});
}

void KvHistory::Wrote(std::size_t begin, std::size_t end, PolicyVersion version) {
  THRESHER_CHECK(begin <= written_, "a gap in the KV history");
  const auto until = static_cast<std::uint32_t>(end);
  for (auto position = static_cast<std::uint32_t>(begin); position < until; ++position) {
    if (position >= written_) {
      Append(position, version, false);
    } else if (WriterOf(position) != version) {
      Append(position, version, true);
    }
  }
  written_ = std::max(written_, until);
}

void KvHistory::Restore(std::vector<KvSpan> spans) {
  spans_ = std::move(spans);
  written_ = 0;
  for (const KvSpan& span : spans_) written_ = std::max(written_, span.end);
}

void KvHistory::Truncate(std::size_t positions) {
  written_ = std::min(written_, static_cast<std::uint32_t>(positions));
  for (KvSpan& span : spans_) span.end = std::min(span.end, written_);
  std::erase_if(spans_, [](const KvSpan& span) { return span.begin >= span.end; });
}

void AppendSampled(std::uint32_t position, PolicyVersion version, std::vector<VersionSpan>& spans) {
  if (!spans.empty() && spans.back().end == position && spans.back().version == version) {
    ++spans.back().end;
  } else {
    spans.push_back({position, position + 1, version});
  }
}

}  // namespace thresher::actor
