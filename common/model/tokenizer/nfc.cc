#include "common/model/tokenizer/nfc.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uniset.h>

#include <algorithm>
#include <limits>

#include "common/base/check.h"

namespace thresher::model {
namespace {

// U+0300, the first character that is not by itself in form C, begins with this byte; no byte of a
// character before it is as large.
constexpr unsigned char kFirstLead = 0xCC;

class IcuNfc final : public Nfc {
 public:
  IcuNfc(const icu::Normalizer2& nfc, icu::UnicodeSet characters)
      : characters_(std::move(characters)), nfc_(nfc, characters_) {}

  std::string Normalize(std::string_view text) const override {
    const bool plain = std::ranges::all_of(
        text, [](char c) { return static_cast<unsigned char>(c) < kFirstLead; });
    if (plain) return std::string(text);
    THRESHER_CHECK(text.size() <= std::numeric_limits<std::int32_t>::max(), "a text above 2 GiB");
    UErrorCode error = U_ZERO_ERROR;
    const icu::StringPiece piece(text.data(), static_cast<std::int32_t>(text.size()));
    std::string out;
    if (nfc_.isNormalizedUTF8(piece, error) && U_SUCCESS(error)) return std::string(text);
    error = U_ZERO_ERROR;
    icu::StringByteSink<std::string> sink(&out, static_cast<std::int32_t>(text.size()));
    nfc_.normalizeUTF8(0, piece, sink, nullptr, error);
    THRESHER_CHECK(U_SUCCESS(error), u_errorName(error));
    return out;
  }

 private:
  const icu::UnicodeSet characters_;  // before nfc_, which refers to it
  const icu::FilteredNormalizer2 nfc_;
};

}  // namespace

Result<std::unique_ptr<const Nfc>> Nfc::Make() {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(error);
  icu::UnicodeSet characters(UNICODE_STRING_SIMPLE("[:age=9.0:]"), error);
  if (U_FAILURE(error)) {
    return InternalError(std::string("ICU has no data for normalization: ") + u_errorName(error));
  }
  characters.freeze();
  return std::unique_ptr<const Nfc>(std::make_unique<IcuNfc>(*nfc, std::move(characters)));
}

}  // namespace thresher::model
