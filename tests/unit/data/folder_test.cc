#include "common/data/folder.h"

#include <gtest/gtest.h>

#include "common/base/hash.h"
#include "common/data/files.h"
#include "tests/unit/data/temp_folder.h"

namespace thresher {
namespace {

namespace fs = std::filesystem;

class Folder : public testing::Test {
 protected:
  FolderManifest Publish() {
    FolderWriter writer = FolderWriter::Open(target_).value();
    EXPECT_TRUE(writer.WriteFile("config.json", "{}").ok());
    EXPECT_TRUE(writer.WriteFile("trainer/rank0/state.bin", std::string(1000, 's')).ok());
    EXPECT_TRUE(writer.WriteFile("empty", "").ok());
    EXPECT_FALSE(fs::exists(target_));
    Result<FolderManifest> manifest = writer.Commit();
    EXPECT_TRUE(manifest.ok()) << manifest.status().ToString();
    return *manifest;
  }
  void ExpectDamage(const std::string& named) {
    Status status = VerifyFolder(target_).status();
    EXPECT_EQ(status.code(), StatusCode::kDataLoss) << status.ToString();
    EXPECT_NE(status.message().find(named), std::string::npos) << status.ToString();
  }
  std::size_t Siblings() {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(parent_.path()), fs::directory_iterator()));
  }

  TempFolder parent_;
  fs::path target_ = parent_ / "step_000001";
};

TEST_F(Folder, AppearsWholeAndVerifies) {
  FolderManifest manifest = Publish();
  EXPECT_EQ(Siblings(), 1u);
  Result<FolderManifest> verified = VerifyFolder(target_);
  ASSERT_TRUE(verified.ok()) << verified.status().ToString();
  EXPECT_EQ(*verified, manifest);
  EXPECT_EQ(manifest.files.size(), 3u);
  EXPECT_EQ(manifest.files.at("trainer/rank0/state.bin").bytes, 1000u);
  EXPECT_EQ(manifest.hash, HashText128(ReadFile(target_ / kManifestName).value()));
}

TEST_F(Folder, EqualContentGivesAnEqualManifest) {
  FolderManifest first = Publish();
  fs::remove_all(target_);
  EXPECT_EQ(Publish(), first);
}

TEST_F(Folder, WithoutCommitNothingIsLeft) {
  {
    FolderWriter writer = FolderWriter::Open(target_).value();
    ASSERT_TRUE(writer.WriteFile("a/b", "x").ok());
    EXPECT_EQ(Siblings(), 1u);
  }
  EXPECT_EQ(Siblings(), 0u);
}

TEST_F(Folder, FilesOfOtherCodeAreListedOrRefused) {
  FolderWriter writer = FolderWriter::Open(target_).value();
  ASSERT_TRUE(WriteFileAtomic(writer.path() / "tokenizer.json", "{}").ok());
  Status status = writer.Commit().status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("tokenizer.json"), std::string::npos) << status.ToString();
  EXPECT_EQ(writer.AddFile("other.json").code(), StatusCode::kNotFound);
  ASSERT_TRUE(writer.AddFile("tokenizer.json").ok());
  ASSERT_TRUE(writer.Commit().ok());
  EXPECT_EQ(writer.Commit().status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(VerifyFolder(target_).ok());
}

TEST_F(Folder, ANameThatIsTakenIsNeverReplaced) {
  FolderWriter early = FolderWriter::Open(target_).value();
  ASSERT_TRUE(early.WriteFile("mine", "x").ok());
  FolderManifest manifest = Publish();
  EXPECT_EQ(FolderWriter::Open(target_).status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(early.Commit().status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(VerifyFolder(target_).value(), manifest);
  fs::remove_all(target_);
  fs::create_directory(target_);  // empty: plain rename(2) would replace it
  EXPECT_EQ(early.Commit().status().code(), StatusCode::kAlreadyExists);
}

TEST_F(Folder, NamesThatLeadOutAreRefused) {
  FolderWriter writer = FolderWriter::Open(target_).value();
  for (const char* name :
       {"", ".", "..", "/etc/x", "../x", "a/../../x", "a/", "a//b", "./a", kManifestName}) {
    EXPECT_EQ(writer.WriteFile(name, "x").code(), StatusCode::kInvalidArgument) << name;
  }
  ASSERT_TRUE(writer.WriteFile("a", "x").ok());
  EXPECT_EQ(writer.WriteFile("a", "y").code(), StatusCode::kAlreadyExists);
}

TEST_F(Folder, EveryKindOfDamageIsNamed) {
  EXPECT_EQ(VerifyFolder(target_).status().code(), StatusCode::kNotFound);
  Publish();
  std::string manifest = ReadFile(target_ / kManifestName).value();
  auto store = [&](const std::string& name, const std::string& bytes) {
    ASSERT_TRUE(WriteFileAtomic(target_ / name, bytes).ok());
  };
  store("config.json", "[]");
  ExpectDamage("config.json: content");
  store("config.json", "{} ");
  ExpectDamage("config.json: 3 bytes");
  fs::remove(target_ / "config.json");
  ExpectDamage("config.json: missing");
  store("config.json", "{}");
  store("extra", "");
  ExpectDamage("extra: not in the manifest");
  fs::remove(target_ / "extra");
  ASSERT_TRUE(VerifyFolder(target_).ok());

  for (std::string text : {"", "[]", "{\"format\":1}", "{\"format\":2,\"files\":{}}",
                           "{\"format\":1,\"files\":{\"config.json\":{}}}",
                           "{\"format\":1,\"files\":{\"a\":{\"bytes\":-1,\"xxh3_128\":\"0\"}}}"}) {
    store(kManifestName, text);
    ExpectDamage(kManifestName);
  }
  store(kManifestName, manifest.substr(0, manifest.size() / 2));
  ExpectDamage(kManifestName);
  fs::remove(target_ / kManifestName);
  ExpectDamage(kManifestName);
}

TEST_F(Folder, AManifestCannotMakeUsReadElsewhere) {
  Publish();
  ASSERT_TRUE(WriteFileAtomic(parent_ / "secret", "x").ok());
  std::string hash = HashText128("x").ToString();
  ASSERT_TRUE(
      WriteFileAtomic(
          target_ / kManifestName,
          "{\"format\":1,\"files\":{\"../secret\":{\"bytes\":1,\"xxh3_128\":\"" + hash + "\"}}}")
          .ok());
  EXPECT_EQ(VerifyFolder(target_).status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace thresher
