#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/data/file_handle.h"

namespace thresher::examples {

inline constexpr std::size_t kMostLineBytes = std::size_t{16} << 20;

// Where a line lies, and what it was.
struct LineAt {
  std::uint64_t offset = 0;
  std::uint64_t hash = 0;  // of its bytes
  std::uint32_t bytes = 0;
  std::uint32_t number = 0;  // from 1
};

// A file of lines of which only places are kept in memory: 24 bytes a line. Thread-safe once read
// through. Errors name the file.
class LineFile {
 public:
  using Visit = std::function<Status(const LineAt& at, std::string_view line)>;

  static Result<LineFile> Open(const std::filesystem::path& path);
  // All lines that are not blank, in order, without their ends (\n or \r\n), in bounded memory;
  // then the hash of the whole file. Errors: kInvalidArgument (a line of more than 16 MiB), those
  // of `visit`, both naming the line; those of reading.
  Result<Hash128> ReadThrough(const Visit& visit) const;
  // Error: kDataLoss naming the line when it is not what it was.
  Result<std::string> Read(const LineAt& at) const;

  const std::filesystem::path& path() const { return file_.path(); }
  // "data.jsonl: line 7"
  std::string Name(const LineAt& at) const;

 private:
  explicit LineFile(FileHandle file) : file_(std::move(file)) {}
  Status TooLong(std::uint64_t number) const;
  FileHandle file_;
};

}  // namespace thresher::examples
