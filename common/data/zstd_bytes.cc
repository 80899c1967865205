#include "common/data/zstd_bytes.h"

#include <zstd.h>

namespace thresher {

Result<std::string> Zstd(std::string_view bytes, int level) {
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  const std::size_t size =
      ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), level);
  if (ZSTD_isError(size)) return InternalError(std::string("zstd: ") + ZSTD_getErrorName(size));
  frame.resize(size);
  return frame;
}

Status Unzstd(std::string_view frame, std::size_t limit, std::string* bytes) {
  const unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > limit) {
    return DataLoss("no zstd frame of an allowed size");
  }
  bytes->resize(size);
  const std::size_t result =
      ZSTD_decompress(bytes->data(), bytes->size(), frame.data(), frame.size());
  if (ZSTD_isError(result)) return DataLoss(ZSTD_getErrorName(result));
  if (result != size) return DataLoss("shorter than its zstd frame says");
  return Status::Ok();
}

}  // namespace thresher
