#include <cstdio>
#include <iostream>

#include "launch/commands.h"

namespace thresher::launch {

int Report(const Status& status, int code) {
  std::cerr << "thresher: " << status.ToString() << "\n";
  return code;
}

std::string Visible(const std::string& text) {
  std::string out;
  for (unsigned char c : text) {
    if (c >= 0x20 && c != 0x7f) {
      out += static_cast<char>(c);
      continue;
    }
    char escape[8];
    std::snprintf(escape, sizeof escape, "\\x%02x", c);
    out += escape;
  }
  return out;
}

}  // namespace thresher::launch
