#include <algorithm>

#include "common/net/http.h"
#include "common/net/secret_file.h"

namespace thresher::net {
namespace {

constexpr std::size_t kTokenChars = 64;

std::string Hexadecimal(const std::string& bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : bytes) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

Result<std::string> LoadOrCreateToken(const std::string& run_folder) {
  std::filesystem::path file = std::filesystem::path(run_folder) / "token";
  THRESHER_ASSIGN_OR_RETURN(std::string token,
                            LoadOrCreateSecret(file, []() -> Result<std::string> {
                              return Hexadecimal(RandomBytes(kTokenChars / 2));
                            }));
  while (!token.empty() && token.back() == '\n') token.pop_back();
  auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (token.size() != kTokenChars || !std::all_of(token.begin(), token.end(), is_digit)) {
    return DataLoss(file.string() + ": allowed: 64 hexadecimal digits");
  }
  return token;
}

}  // namespace thresher::net
