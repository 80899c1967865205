#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/status.h"

struct ZSTD_CCtx_s;

namespace thresher {

// One zstd frame that names its size.
Result<std::string> Zstd(std::string_view bytes, int level);
// Into *bytes, at most `limit` of them. Error: kDataLoss telling what is wrong.
Status Unzstd(std::string_view frame, std::size_t limit, std::string* bytes);

// The first bytes of what a frame holds, as many as `frame`, its beginning, has whole; at most
// `most`. Error as above.
Result<std::string> UnzstdBegin(std::string_view frame, std::size_t most);

// Packs what comes in pieces into one frame that names its size, in a few megabytes of memory.
class ZstdPacker {
 public:
  // `bytes`: of all pieces together.
  ZstdPacker(int level, std::uint64_t bytes);
  // What of the frame is ready with this piece; all of it with the `last` one. Error: kInternal
  // (also when the pieces are not as long as was said).
  Result<std::string> Add(std::string_view piece, bool last);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
};

}  // namespace thresher
