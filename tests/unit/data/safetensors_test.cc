#include "common/data/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "common/data/byte_order.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

std::string File(const std::string& header, const std::string& data = "") {
  std::string file;
  AppendLittle<std::uint64_t>(file, header.size());
  return file + header + data;
}

Status ParseStatus(std::string_view bytes) { return Safetensors::Parse(bytes, "origin").status(); }

std::string Sample() {
  std::string a(24, 'a'), b(6, 'b'), c(5, 'c');
  return EncodeSafetensors({{"weight", DType::kF32, {2, 3}, a},
                            {"half", DType::kBF16, {3}, b},
                            {"empty", DType::kI64, {0, 7}, ""},
                            {"bytes", DType::kU8, {5, 1}, c}},
                           {{"format", "pt"}})
      .value();
}

TEST(Safetensors, WhatIsEncodedIsParsedBack) {
  std::string file = Sample();
  Result<Safetensors> parsed = Safetensors::Parse(file, "origin");
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  ASSERT_EQ(parsed->tensors().size(), 4u);
  EXPECT_EQ(parsed->metadata().at("format"), "pt");
  TensorView weight = parsed->Find("weight").value();
  EXPECT_EQ(weight.dtype, DType::kF32);
  EXPECT_EQ(weight.shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(weight.data, std::string(24, 'a'));
  EXPECT_EQ(parsed->Find("bytes").value().data, "ccccc");
  EXPECT_EQ(parsed->Find("empty").value().data.size(), 0u);
  Status missing = parsed->Find("other").status();
  EXPECT_EQ(missing.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(missing.message().find("origin: tensor 'other'"), std::string::npos);
}

// The exact bytes: other tools and the published hash depend on them.
TEST(Safetensors, BytesAreFixed) {
  std::string data("\0\0\200?", 4);
  std::string header =
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(EncodeSafetensors({{"w", DType::kF32, {1}, data}}, {{"format", "pt"}}).value(),
            File(header, data));
  EXPECT_EQ(EncodeSafetensors({}, {}).value(), File("{}      "));
}

TEST(Safetensors, EveryDtypeSurvives) {
  for (DType dtype :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kI32, DType::kI64, DType::kU8}) {
    std::string data(3 * DTypeBytes(dtype), 'd');
    std::string file = EncodeSafetensors({{"t", dtype, {3}, data}}, {}).value();
    TensorView tensor = Safetensors::Parse(file, "o")->Find("t").value();
    EXPECT_EQ(tensor.dtype, dtype) << DTypeName(dtype);
    EXPECT_EQ(tensor.data.size(), data.size());
  }
}

TEST(Safetensors, ViewsOfAnOpenedFileOutliveTheMove) {
  TempFolder folder;
  ASSERT_TRUE(WriteFileAtomic(folder / "m.safetensors", Sample()).ok());
  Safetensors opened = Safetensors::Open(folder / "m.safetensors").value();
  Safetensors moved = std::move(opened);
  EXPECT_EQ(moved.Find("weight")->data, std::string(24, 'a'));
  EXPECT_EQ(Safetensors::Open(folder / "none").status().code(), StatusCode::kNotFound);
}

struct Lie {
  const char* name;
  std::string file;
  const char* message;
};

const std::string kHuge = "18446744073709551615";

std::vector<Lie> Lies() {
  auto tensor = [](const std::string& name, const std::string& shape, const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":" + shape +
           ",\"data_offsets\":" + offsets + "}";
  };
  auto one = [&](const std::string& shape, const std::string& offsets, std::size_t bytes) {
    return File("{" + tensor("t", shape, offsets) + "}", std::string(bytes, 'x'));
  };
  auto two = [&](const std::string& a, const std::string& b, std::size_t bytes) {
    return File("{" + tensor("a", "[2]", a) + "," + tensor("b", "[2]", b) + "}",
                std::string(bytes, 'x'));
  };
  return {
      {"nothing", "", "header: cut off"},
      {"seven bytes", "1234567", "header: cut off"},
      {"length beyond the file", std::string("\x10\0\0\0\0\0\0\0{}", 10), "length 16"},
      {"length that wraps", std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), "length"},
      {"no JSON", File("hello"), "header"},
      {"JSON with something behind", File("{}{}"), "header"},
      {"not UTF-8", File("{\"\xff\":1}"), "header"},
      {"an array", File("[]"), "no JSON object"},
      {"half a million brackets", File(std::string(500000, '[')), "header"},
      {"nested too deep", File("{\"t\":" + std::string(50, '[') + std::string(50, ']') + "}"),
       "deeper"},
      {"a name twice",
       File("{" + tensor("t", "[1]", "[0,4]") + "," + tensor("t", "[1]", "[4,8]") + "}",
            "12345678"),
       "'t' stands twice"},
      {"a field twice", File(R"({"t":{"dtype":"F32","dtype":"F32","shape":[1]}})", "1234"),
       "stands twice"},
      {"metadata that is no text", File(R"({"__metadata__":{"a":1}})"), "__metadata__"},
      {"metadata that is no object", File(R"({"__metadata__":[]})"), "__metadata__"},
      {"a tensor that is a number", File(R"({"t":1})"), "tensor 't'"},
      {"a field too many",
       File(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", "1234"), "exactly"},
      {"a dtype that is a number",
       File(R"({"t":{"dtype":1,"shape":[1],"data_offsets":[0,4]}})", "1234"), "dtype"},
      {"shape as text", File(R"({"t":{"dtype":"F32","shape":"1","data_offsets":[0,4]}})", "1234"),
       "shape"},
      {"negative dimension", one("[-1]", "[0,4]", 4), "dimension -1"},
      {"fractional dimension", one("[1.0]", "[0,4]", 4), "dimension 1.0"},
      {"dimension over int64", one("[" + kHuge + "]", "[0,4]", 4), "dimension"},
      {"product that wraps to the size", one("[4611686018427387904,4]", "[0,0]", 0), "more than"},
      {"shape larger than the data", one("[2]", "[0,4]", 4), "8"},
      {"shape smaller than the data", one("[1]", "[0,8]", 8), "4"},
      {"offsets backwards", one("[1]", "[4,0]", 4), "data_offsets"},
      {"offsets beyond the data", one("[2]", "[0,8]", 7), "in 7 bytes"},
      {"offsets that wrap", one("[1]", "[" + kHuge + ",3]", 4), "data_offsets"},
      {"three offsets", one("[1]", "[0,4,4]", 4), "data_offsets"},
      {"negative offset", one("[1]", "[-4,0]", 4), "data_offsets"},
      {"overlap", two("[0,8]", "[4,12]", 12), "tensor 'b': overlaps"},
      {"the same bytes twice", two("[0,8]", "[0,8]", 8), "overlaps"},
      {"a gap", two("[0,8]", "[12,20]", 20), "tensor 'b': leaves a gap"},
      {"a gap at the start", one("[1]", "[4,8]", 8), "gap"},
      {"bytes behind the last", one("[1]", "[0,4]", 5), "1 bytes belong to no tensor"},
      {"data without a tensor", File("{}", "x"), "belong to no tensor"},
  };
}

TEST(Safetensors, EveryLieIsDataLossWithItsOrigin) {
  for (const Lie& lie : Lies()) {
    Status status = ParseStatus(lie.file);
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << lie.name << ": " << status.ToString();
    EXPECT_EQ(status.message().find("origin: "), 0u) << lie.name << ": " << status.ToString();
    EXPECT_NE(status.message().find(lie.message), std::string::npos)
        << lie.name << ": " << status.ToString();
  }
}

TEST(Safetensors, AnUnknownDtypeIsNamedWithWhatIsAllowed) {
  Status status =
      ParseStatus(File(R"({"t":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}})", "1234"));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "origin: tensor 't': dtype is 'F8_E4M3'; allowed: F32, F16, BF16, I32, I64, U8");
}

TEST(Safetensors, MutationsNeverCrashAndViewsStayInside) {
  std::mt19937_64 random(6);
  std::string sample = Sample();
  int accepted = 0;
  for (int round = 0; round < 30000; ++round) {
    std::string file = sample;
    for (std::uint64_t edits = 1 + random() % 3; edits > 0; --edits) {
      const char* digits = "0123456789[]{}\",:";
      std::size_t at = random() % file.size();
      file[at] = random() % 2 ? digits[random() % 17] : static_cast<char>(random());
    }
    if (random() % 5 == 0) file.resize(random() % file.size());
    Result<Safetensors> parsed = Safetensors::Parse(file, "o");
    if (!parsed.ok()) continue;
    ++accepted;
    std::size_t total = 0;
    for (const TensorView& tensor : parsed->tensors()) {
      EXPECT_GE(tensor.data.data(), file.data());
      EXPECT_LE(tensor.data.data() + tensor.data.size(), file.data() + file.size());
      total += tensor.data.size();
    }
    EXPECT_LE(total, file.size());
  }
  EXPECT_GT(accepted, 100);
}

TEST(Safetensors, TheWriterRefusesWhatTheReaderWould) {
  auto code = [](const std::vector<TensorView>& tensors) {
    return EncodeSafetensors(tensors, {}).status().code();
  };
  EXPECT_EQ(code({{"t", DType::kF32, {2}, "1234"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"t", DType::kF32, {-1}, ""}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"t", DType::kU8, {1}, "1"}, {"t", DType::kU8, {1}, "1"}}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"__metadata__", DType::kU8, {1}, "1"}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"\xff", DType::kU8, {1}, "1"}}), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thresher
