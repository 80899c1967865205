#include <utility>

#include "common/base/hash.h"
#include "common/examples/line_file.h"
#include "common/examples/rows.h"

namespace thresher::examples {
namespace {

class LineRows final : public Rows {
 public:
  LineRows(LineFile file, const Renderer& renderer) : file_(std::move(file)), renderer_(renderer) {}

  Status ReadThrough(const RowsOptions& options) {
    auto read = file_.ReadThrough([&](const LineAt& at, std::string_view line) -> Status {
      if (!options.trusted) {
        THRESHER_ASSIGN_OR_RETURN(const bool kept, Look(line));
        if (!kept) return Status::Ok();
      }
      (IsHeldOut(HashText128(line), options.held_out_share) ? held_out_ : rows_).push_back(at);
      return Status::Ok();
    });
    if (!read.ok()) return read.status();
    hash_ = *read;
    counts_.examples = rows_.size();
    counts_.held_out = held_out_.size();
    return Status::Ok();
  }

  std::uint64_t size() const override { return rows_.size(); }
  std::uint64_t held_out() const override { return held_out_.size(); }
  Result<Example> At(std::uint64_t row) const override { return Read(rows_.at(row)); }
  Result<Example> HeldOut(std::uint64_t row) const override { return Read(held_out_.at(row)); }
  const SourceCounts& counts() const override { return counts_; }
  Hash128 hash() const override { return hash_; }

 private:
  // Counts it; false: it is dropped.
  Result<bool> Look(std::string_view line) {
    THRESHER_ASSIGN_OR_RETURN(const ChatLine chat, ParseChatLine(line));
    THRESHER_ASSIGN_OR_RETURN(const auto rendered, renderer_.Render(chat));
    using Fit = Renderer::Rendered::Fit;
    counts_.dropped += rendered.fit == Fit::kDropped;
    counts_.truncated += rendered.fit == Fit::kTruncated;
    counts_.tokens += rendered.example.tokens.size();
    counts_.loss_tokens += rendered.example.LossTokens();
    return rendered.fit != Fit::kDropped;
  }

  Result<Example> Read(const LineAt& at) const {
    THRESHER_ASSIGN_OR_RETURN(const std::string line, file_.Read(at));
    const auto chat = ParseChatLine(line);
    if (!chat.ok()) return chat.status().WithContext(file_.Name(at));
    auto rendered = renderer_.Render(*chat);
    if (!rendered.ok()) return rendered.status().WithContext(file_.Name(at));
    return std::move(rendered->example);
  }

  LineFile file_;
  const Renderer renderer_;
  std::vector<LineAt> rows_, held_out_;
  SourceCounts counts_;
  Hash128 hash_;
};

}  // namespace

bool IsHeldOut(const Hash128& hash, double share) {
  return static_cast<double>(hash.low & 0xffffffffu) < share * 0x1p32;
}

Result<std::unique_ptr<Rows>> OpenLines(const std::filesystem::path& file, const Renderer& renderer,
                                        const RowsOptions& options) {
  THRESHER_ASSIGN_OR_RETURN(LineFile lines, LineFile::Open(file));
  auto rows = std::make_unique<LineRows>(std::move(lines), renderer);
  THRESHER_RETURN_IF_ERROR(rows->ReadThrough(options));
  return std::unique_ptr<Rows>(std::move(rows));
}

}  // namespace thresher::examples
