// Our side of the comparison with the `tokenizers` package and Transformers; check.py asks.
//   tokenizer_tool encode|special|decode|text|stream FOLDER: requests on stdin, replies on stdout
//   tokenizer_tool time FOLDER: texts on stdin; the seconds that encoding them took
//   tokenizer_tool chat FOLDER: the template's name, then conversations on stdin, texts on stdout
// A message is its length (32 bits, little-endian) and its bytes; ids are 32-bit integers. `encode`
// and `special` take text and give ids; `decode` (without special tokens), `text` (with them) and
// `stream` (with them, by StreamDecoder) take ids and give text.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/tokenizer.h"
#include "common/model/tokenizer/chat_template.h"
#include "common/model/tokenizer/stream_decoder.h"

namespace {

using namespace thresher;         // NOLINT: one file, one purpose
using namespace thresher::model;  // NOLINT
using Ids = std::vector<std::int32_t>;

bool ReadMessage(std::string* message) {
  std::uint32_t size = 0;
  if (std::fread(&size, sizeof(size), 1, stdin) != 1) return false;
  message->resize(size);
  return std::fread(message->data(), 1, size, stdin) == size;
}

void WriteMessage(std::string_view message) {
  const auto size = static_cast<std::uint32_t>(message.size());
  std::fwrite(&size, sizeof(size), 1, stdout);
  std::fwrite(message.data(), 1, message.size(), stdout);
}

std::string_view BytesOf(const Ids& ids) {
  return {reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(std::int32_t)};
}

Ids IdsOf(const std::string& bytes) {
  Ids ids(bytes.size() / sizeof(std::int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(std::int32_t));
  return ids;
}

std::string Streamed(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder decoder(tokenizer, true);
  std::string text;
  for (std::int32_t id : ids) text += decoder.Append(id);
  return text + decoder.Finish();
}

int Fail(const Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 3;
}

// Seconds for encoding all messages, one after the other.
int Time(const std::string& folder) {
  const auto tokenizer = LoadTokenizer(folder);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  std::vector<std::string> messages;
  for (std::string message; ReadMessage(&message);) messages.push_back(message);
  const auto begin = std::chrono::steady_clock::now();
  std::size_t ids = 0;
  for (const std::string& message : messages) ids += (*tokenizer)->Encode(message).size();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  if (ids == 0) return 3;
  std::printf("%.6f\n", seconds.count());
  return 0;
}

int Tokens(const std::string& what, const std::string& folder) {
  const auto tokenizer = LoadTokenizer(folder);
  if (!tokenizer.ok()) return Fail(tokenizer.status());
  for (std::string message; ReadMessage(&message);) {
    if (what == "encode") {
      WriteMessage(BytesOf((*tokenizer)->Encode(message)));
    } else if (what == "special") {
      WriteMessage(BytesOf((*tokenizer)->EncodeWithSpecial(message)));
    } else if (what == "stream") {
      WriteMessage(Streamed(**tokenizer, IdsOf(message)));
    } else {
      WriteMessage((*tokenizer)->Decode(IdsOf(message), what == "text"));
    }
  }
  return 0;
}

// {"messages": [...], "options": {"add_generation_prompt", "thinking", "date"}} -> text; the
// error's message after a zero byte.
std::string Rendered(const ChatTemplate& chat, const std::string& request) {
  const auto json = nlohmann::json::parse(request);
  std::vector<ChatMessage> messages;
  for (const auto& message : json["messages"]) {
    messages.push_back({message["role"].get<std::string>(), message["content"].get<std::string>()});
  }
  ChatOptions options;
  options.add_generation_prompt = json["options"].value("add_generation_prompt", true);
  options.thinking = json["options"].value("thinking", true);
  options.date = json["options"].value("date", "");
  const auto text = chat.Render(messages, options);
  return text.ok() ? *text : std::string(1, '\0') + text.status().message();
}

int Chat(const std::string& folder) {
  auto chat = ChatTemplate::FromFolder(folder);
  if (!chat.ok()) return Fail(chat.status());
  WriteMessage(chat->name());
  for (std::string message; ReadMessage(&message);) WriteMessage(Rendered(*chat, message));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::string what = argv[1];
  if (what == "time") return Time(argv[2]);
  return what == "chat" ? Chat(argv[2]) : Tokens(what, argv[2]);
}
