// Files of safetensors. The first byte chooses: 0, a whole file; otherwise a header, whose length
// is made to fit and behind which stand as many bytes as it asks for: a fuzzer does not find those
// numbers by itself. What is accepted must have views that tile the data, and must be the same when
// it is encoded and parsed again.

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/check.h"
#include "common/data/byte_order.h"
#include "common/data/safetensors.h"

namespace {

using namespace thresher;  // NOLINT: one file, one purpose

constexpr std::uint64_t kMaxData = 1 << 16;

void CheckViews(const Safetensors& file, std::string_view bytes) {
  const char* next = nullptr;
  for (const TensorView& tensor : file.tensors()) {
    THRESHER_CHECK(next == nullptr || tensor.data.data() == next, "a gap or an overlap");
    next = tensor.data.data() + tensor.data.size();
    std::uint64_t size = DTypeBytes(tensor.dtype);
    for (std::int64_t dimension : tensor.shape) size *= static_cast<std::uint64_t>(dimension);
    THRESHER_CHECK(size == tensor.data.size(), "a view that is not of its shape");
    THRESHER_CHECK(file.Find(tensor.name).ok(), "a tensor that is not found");
  }
  THRESHER_CHECK(next == nullptr || next == bytes.data() + bytes.size(), "views end elsewhere");
}

void FuzzFile(std::string_view bytes) {
  const auto file = Safetensors::Parse(bytes, "fuzz");
  if (!file.ok()) return;
  CheckViews(*file, bytes);
  const auto encoded = EncodeSafetensors(file->tensors(), file->metadata());
  THRESHER_CHECK(encoded.ok(), encoded.status().ToString());
  const auto again = Safetensors::Parse(*encoded, "again");
  THRESHER_CHECK(again.ok(), again.status().ToString());
  THRESHER_CHECK(again->tensors().size() == file->tensors().size(), "a tensor was lost");
  for (const TensorView& tensor : file->tensors()) {
    const TensorView same = again->Find(tensor.name).value();
    THRESHER_CHECK(
        same.dtype == tensor.dtype && same.shape == tensor.shape && same.data == tensor.data,
        "a tensor that changes");
  }
}

// The largest number in the header, up to a limit: where its data may end.
std::uint64_t DataBytes(std::string_view header) {
  std::uint64_t largest = 0, number = 0;
  for (char c : header) {
    number = c >= '0' && c <= '9' ? std::min<std::uint64_t>(number * 10 + (c - '0'), kMaxData) : 0;
    largest = std::max(largest, number < kMaxData ? number : 0);
  }
  return largest;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 0) {
    FuzzFile(input);
    return 0;
  }
  std::string file;
  AppendLittle<std::uint64_t>(file, input.size());
  file += input;
  file.append(DataBytes(input), 'x');
  FuzzFile(file);
  return 0;
}
