#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/status.h"
#include "common/data/files.h"

namespace thresher {

// The safetensors format: u64 length of the header (little-endian), header (a JSON object: name ->
// {dtype, shape, data_offsets [begin, end) behind the header}, and "__metadata__": text -> text),
// then the tensors' bytes, which tile the rest of the file. Source: huggingface/safetensors.

enum class DType : std::uint8_t { kF32, kF16, kBF16, kI32, kI64, kU8 };
const char* DTypeName(DType dtype);  // "F32"
std::size_t DTypeBytes(DType dtype);

struct TensorView {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;  // row-major; empty: a scalar
  std::string_view data;            // little-endian elements; aligned to its file offset only
};

// Longest header that is read; the limit of the reference implementation.
inline constexpr std::uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;

// A parsed file. Every number of the header is checked before it is used: afterwards every view
// lies inside the bytes, has exactly the bytes of its shape, and no two overlap.
class Safetensors {
 public:
  // Borrows `bytes`. `origin` names them in errors. Errors, naming origin and tensor: kDataLoss
  // (damaged: lengths, JSON, duplicate names, offsets that overlap, leave gaps or run out of the
  // file, sizes that do not fit shapes or overflow), kInvalidArgument (a dtype not listed above).
  static Result<Safetensors> Parse(std::string_view bytes, const std::string& origin);
  // Maps the file and keeps it mapped. Further errors as in ErrnoStatus.
  static Result<Safetensors> Open(const std::filesystem::path& path);

  const std::vector<TensorView>& tensors() const { return tensors_; }  // by offset
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Error: kInvalidArgument naming origin and tensor.
  Result<TensorView> Find(const std::string& name) const;

 private:
  friend class SafetensorsParser;
  std::string origin_;
  std::optional<MappedFile> file_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::map<std::string, std::string> metadata_;
};

// Encodes `tensors` in the given order, without gaps. Equal input gives equal bytes: metadata
// first, sorted; then tensors; no white space; the header padded with spaces to a multiple of 8.
// Errors, naming the tensor: kInvalidArgument (a name twice, "__metadata__", not UTF-8, a negative
// dimension, data that does not have the bytes of its shape).
Result<std::string> EncodeSafetensors(const std::vector<TensorView>& tensors,
                                      const std::map<std::string, std::string>& metadata);
// What stands before the tensors in it, for whoever writes their bytes from where they are.
Result<std::string> EncodeSafetensorsHeader(const std::vector<TensorView>& tensors,
                                            const std::map<std::string, std::string>& metadata);

}  // namespace thresher
