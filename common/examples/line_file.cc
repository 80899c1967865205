#include "common/examples/line_file.h"

#include <fcntl.h>

#include <limits>
#include <utility>

#include "common/base/hash.h"

namespace thresher::examples {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

std::uint64_t HashOf(std::string_view line) {
  return HashBytes64(std::as_bytes(std::span(line.data(), line.size())));
}

bool Blank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

std::string_view WithoutReturn(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

}  // namespace

Result<LineFile> LineFile::Open(const std::filesystem::path& path) {
  THRESHER_ASSIGN_OR_RETURN(FileHandle file, FileHandle::Open(path, O_RDONLY | O_CLOEXEC));
  return LineFile(std::move(file));
}

std::string LineFile::Name(const LineAt& at) const {
  return path().string() + ": line " + std::to_string(at.number);
}

Status LineFile::TooLong(std::uint64_t number) const {
  return InvalidArgument(path().string() + ": line " + std::to_string(number) + ": longer than " +
                         std::to_string(kMostLineBytes) + " bytes");
}

Result<Hash128> LineFile::ReadThrough(const Visit& visit) const {
  Hasher128 hasher;
  std::string open;         // a line whose end has not come
  std::uint64_t begin = 0;  // of it
  std::uint64_t number = 0;
  const auto line = [&](std::string_view text) -> Status {
    LineAt at{begin, 0, 0, static_cast<std::uint32_t>(++number)};
    if (number > std::numeric_limits<std::uint32_t>::max()) {
      return InvalidArgument(path().string() + ": more than 2^32 - 1 lines");
    }
    if (text.size() > kMostLineBytes) return TooLong(at.number);
    begin += text.size() + 1;
    text = WithoutReturn(text);
    if (Blank(text)) return Status::Ok();
    at.bytes = static_cast<std::uint32_t>(text.size());
    at.hash = HashOf(text);
    const Status status = visit(at, text);
    return status.ok() ? status : status.WithContext(Name(at));
  };
  for (std::uint64_t offset = 0;;) {
    THRESHER_ASSIGN_OR_RETURN(const std::string chunk, file_.ReadAt(offset, kChunkBytes));
    if (chunk.empty()) break;
    hasher.Update(chunk);
    offset += chunk.size();
    std::string_view rest = chunk;
    for (auto end = rest.find('\n'); end != rest.npos; end = rest.find('\n')) {
      open += rest.substr(0, end);
      THRESHER_RETURN_IF_ERROR(line(open));
      open.clear();
      rest.remove_prefix(end + 1);
    }
    open += rest;
    if (open.size() > kMostLineBytes) return TooLong(number + 1);
  }
  if (!open.empty()) THRESHER_RETURN_IF_ERROR(line(open));
  return hasher.Finish();
}

Result<std::string> LineFile::Read(const LineAt& at) const {
  THRESHER_ASSIGN_OR_RETURN(std::string line, file_.ReadAt(at.offset, at.bytes));
  if (line.size() == at.bytes && HashOf(line) == at.hash) return line;
  return DataLoss(Name(at) + ": changed since the file was opened");
}

}  // namespace thresher::examples
