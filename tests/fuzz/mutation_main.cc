// Drives a fuzz target where there is no libFuzzer: mutates the files of a folder at random, with
// the options of libFuzzer that are used here. A finding is a crash; its input lies in the file
// named on standard error.
//   fuzz_x SEEDS-FOLDER... [-runs=N] [-max_total_time=SECONDS] [-seed=N] [-dict=FILE]
// Without options every seed is run once as it is.

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

// So that what a sanitizer finds is saved below, too.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1:print_stacktrace=1"; }

namespace {

constexpr std::size_t kMostBytes = 1 << 16;
constexpr char kCrashFile[] = "crash-input";

std::string g_input;  // for the signal handler

void SaveInput(int signal) {
  const int file = open(kCrashFile, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file >= 0) {
    const ssize_t written = write(file, g_input.data(), g_input.size());
    (void)written;
    close(file);
  }
  constexpr char kText[] = "the input that crashed is in ./crash-input\n";
  const ssize_t shown = write(STDERR_FILENO, kText, sizeof(kText) - 1);
  (void)shown;
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  raise(signal);
}

struct Options {
  std::vector<std::string> folders;
  std::uint64_t runs = 0, seconds = 0, seed = 1;
  std::string dictionary;
};

Options Parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const auto value = [&](std::string_view name) {
      return argument.starts_with(name) ? argv[i] + name.size() : nullptr;
    };
    if (const char* text = value("-runs=")) {
      options.runs = std::strtoull(text, nullptr, 10);
    } else if (const char* text = value("-max_total_time=")) {
      options.seconds = std::strtoull(text, nullptr, 10);
    } else if (const char* text = value("-seed=")) {
      options.seed = std::strtoull(text, nullptr, 10);
    } else if (const char* text = value("-dict=")) {
      options.dictionary = text;
    } else {
      options.folders.emplace_back(argument);
    }
  }
  return options;
}

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The words of a libFuzzer dictionary: lines name="text" or "text" with \\, \" and \xAB.
std::vector<std::string> ReadDictionary(const std::string& path) {
  std::vector<std::string> words;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::size_t begin = line.find('"'), end = line.rfind('"');
    if (line.starts_with('#') || begin == std::string::npos || end <= begin) continue;
    std::string word;
    for (std::size_t i = begin + 1; i < end; ++i) {
      if (line[i] != '\\') {
        word += line[i];
      } else if (line[++i] == 'x') {
        word += static_cast<char>(std::strtoul(line.substr(i + 1, 2).c_str(), nullptr, 16));
        i += 2;
      } else {
        word += line[i];
      }
    }
    words.push_back(word);
  }
  return words;
}

class Mutator {
 public:
  Mutator(std::vector<std::string> seeds, std::vector<std::string> words, std::uint64_t seed)
      : seeds_(std::move(seeds)), words_(std::move(words)), random_(seed) {}

  std::string Next() {
    std::string input = seeds_[Below(seeds_.size())];
    for (std::size_t i = 1 + Below(1 + Below(8)); i > 0; --i) Mutate(&input);
    if (input.size() > kMostBytes) input.resize(kMostBytes);
    return input;
  }

 private:
  std::size_t Below(std::size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  // A place between two tokens of a text, or any.
  std::size_t Place(const std::string& input) {
    const std::size_t from = Below(input.size() + 1);
    if (Below(4) == 0) return from;
    const std::size_t at = input.find_first_of("\"{}[],: \n<|>-%", from);
    return at == std::string::npos ? from : at + Below(2);
  }

  void Mutate(std::string* input) {
    const std::size_t begin = std::min(Place(*input), input->size());
    const std::size_t size =
        std::min(Below(2) == 0 ? Below(8) : Place(*input), input->size() - begin);
    switch (Below(7)) {
      case 0:
        if (begin < input->size()) (*input)[begin] = static_cast<char>(random_());
        break;
      case 1:
        if (begin < input->size()) (*input)[begin] ^= static_cast<char>(1 << Below(8));
        break;
      case 2:
        input->erase(begin, size);
        break;
      case 3:
        input->insert(begin, input->substr(begin, std::min<std::size_t>(size, 256)));
        break;
      case 4: {
        const std::string& other = seeds_[Below(seeds_.size())];
        input->insert(begin, other.substr(std::min(Place(other), other.size()), Below(128)));
        break;
      }
      default:
        if (!words_.empty())
          input->replace(begin, Below(3) == 0 ? size : 0, words_[Below(words_.size())]);
    }
  }

  std::vector<std::string> seeds_, words_;
  std::mt19937_64 random_;
};

void RunOnce(std::string input) {
  g_input = std::move(input);
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(g_input.data()), g_input.size());
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = Parse(argc, argv);
  std::vector<std::string> seeds;
  std::error_code error;
  for (const std::string& folder : options.folders) {
    for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
      seeds.push_back(ReadAll(entry.path()));
    }
  }
  if (seeds.empty()) {
    std::fprintf(stderr, "%s: no seeds in the folders named\n", argv[0]);
    return 2;
  }
  std::ranges::sort(seeds);  // the order of a folder is no order
  for (int signal : {SIGABRT, SIGSEGV, SIGFPE, SIGILL, SIGBUS}) {
    struct sigaction action = {};
    action.sa_handler = SaveInput;
    sigaction(signal, &action, nullptr);
  }
  for (const std::string& seed : seeds) RunOnce(seed);
  Mutator mutator(std::move(seeds), ReadDictionary(options.dictionary), options.seed);
  const auto begin = std::chrono::steady_clock::now();
  std::uint64_t runs = 0;
  const auto more = [&] {
    if (options.runs > 0 && runs >= options.runs) return false;
    if (options.seconds == 0) return options.runs > 0;
    return std::chrono::steady_clock::now() - begin < std::chrono::seconds(options.seconds);
  };
  for (; more(); ++runs) RunOnce(mutator.Next());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  std::printf("%llu mutated inputs, %.0f a second, no finding\n",
              static_cast<unsigned long long>(runs),
              static_cast<double>(runs) / std::max(took.count(), 1e-3));
  return 0;
}
