#include "common/data/zstd_bytes.h"

#include <zstd.h>

#include <algorithm>

#include "common/base/check.h"

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

Result<std::string> UnzstdBegin(std::string_view frame, std::size_t most) {
  const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(),
                                                                     &ZSTD_freeDCtx);
  THRESHER_CHECK(context != nullptr, "zstd: out of memory");
  const unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR) {
    return DataLoss("no zstd frame that names its size");
  }
  std::string bytes(std::min<unsigned long long>(most, size), '\0');
  ZSTD_outBuffer out{bytes.data(), bytes.size(), 0};
  ZSTD_inBuffer in{frame.data(), frame.size(), 0};
  bool more = true;
  while (more && out.pos < out.size) {
    const std::size_t before = in.pos + out.pos;
    const std::size_t result = ZSTD_decompressStream(context.get(), &out, &in);
    if (ZSTD_isError(result)) return DataLoss(ZSTD_getErrorName(result));
    more = in.pos + out.pos > before;
  }
  bytes.resize(out.pos);
  return bytes;
}

ZstdPacker::ZstdPacker(int level, std::uint64_t bytes) : context_(ZSTD_createCCtx()) {
  THRESHER_CHECK(context_ != nullptr, "zstd: out of memory");
  ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
  ZSTD_CCtx_setPledgedSrcSize(context_.get(), bytes);
}

void ZstdPacker::Free::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }

Result<std::string> ZstdPacker::Add(std::string_view piece, bool last) {
  std::string packed;
  std::string room(ZSTD_CStreamOutSize(), '\0');
  ZSTD_inBuffer in{piece.data(), piece.size(), 0};
  while (true) {
    ZSTD_outBuffer out{room.data(), room.size(), 0};
    const std::size_t left =
        ZSTD_compressStream2(context_.get(), &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
    if (ZSTD_isError(left)) return InternalError(std::string("zstd: ") + ZSTD_getErrorName(left));
    packed.append(room, 0, out.pos);
    if (last ? left == 0 : in.pos == in.size) return packed;
  }
}

}  // namespace thresher
