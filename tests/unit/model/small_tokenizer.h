#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "common/model/tokenizer/byte_alphabet.h"
#include "common/model/tokenizer/utf8.h"

namespace thresher::model {

using TestJson = nlohmann::ordered_json;

// A byte-level tokenizer.json whose vocabulary is the 256 bytes (the id is the byte), then what
// `merges` make, in the order of the list; a pair is written as bytes, such as {" ", "a"}.
inline TestJson SmallTokenizer(
    std::initializer_list<std::pair<std::string, std::string>> merges = {}) {
  const auto spelled = [](const std::string& bytes) {
    std::string token;
    for (char byte : bytes) token += EncodeUtf8(CharacterOfByte(static_cast<unsigned char>(byte)));
    return token;
  };
  TestJson vocab, list = TestJson::array();
  for (int byte = 0; byte < 256; ++byte)
    vocab[spelled(std::string(1, static_cast<char>(byte)))] = byte;
  for (const auto& [left, right] : merges) {
    if (!vocab.contains(spelled(left + right))) vocab[spelled(left + right)] = vocab.size();
    list.push_back({spelled(left), spelled(right)});
  }
  const TestJson byte_level = {{"type", "ByteLevel"},
                               {"add_prefix_space", false},
                               {"trim_offsets", false},
                               {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", TestJson::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", ""},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", vocab},
            {"merges", list}}}};
}

inline TestJson AddedTokenJson(int id, const std::string& content, bool special = true,
                               bool normalized = false) {
  return {{"id", id},        {"content", content},       {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", normalized}, {"special", special}};
}

inline TestJson SplitBy(const std::string& regex) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", regex}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            {{"type", "ByteLevel"},
             {"add_prefix_space", false},
             {"trim_offsets", false},
             {"use_regex", false}}}}};
}

}  // namespace thresher::model
