#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "common/examples/renderer.h"

namespace thresher::examples {

// A folder that goes with the test.
class Folder {
 public:
  Folder() : path_(std::filesystem::temp_directory_path() / ("examples_" + Unique())) {
    std::filesystem::create_directories(path_);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return (path_ / name).string();
  }

 private:
  static std::string Unique() {
    static int next = 0;
    return std::to_string(getpid()) + "_" + std::to_string(next++);
  }
  std::filesystem::path path_;
};

// Letters, digits and what marks of chat templates are made of; <bos> 1, <eos> 2.
inline std::unique_ptr<model::Tokenizer> Letters() {
  std::string alphabet = "\n <>|_!?.,:;+-*/=";
  for (char c = 'a'; c <= 'z'; ++c) alphabet += c;
  for (char c = 'A'; c <= 'Z'; ++c) alphabet += c;
  for (char c = '0'; c <= '9'; ++c) alphabet += c;
  return model::Tokenizer::FromAlphabet(alphabet).value();
}

inline RenderOptions OptionsFor(const model::Tokenizer& tokenizer, std::size_t context = 1000) {
  RenderOptions options;
  options.tokenizer = &tokenizer;
  options.bos = model::Tokenizer::kBos;
  options.eos = model::Tokenizer::kEos;
  options.context = context;
  return options;
}

}  // namespace thresher::examples
