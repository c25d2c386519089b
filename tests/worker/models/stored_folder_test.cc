// Folders that runs and `lepton model pull` leave come back as the models that they were.
#include "worker/models/stored_folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/base/hash.h"
#include "tests/runtime/huggingface/loaded_folder.h"

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class StoredFolderTest : public ::testing::Test {
 protected:
  StoredFolderTest() {
    const auto open = huggingface::OpenFilesOf(huggingface::Golden("bert-texts")).value();
    first_ = ImportFolder(*source_, open).value();
    for (const auto& [name, digest] : first_.content.FolderFiles()) {
      Write(name, source_->Get(digest).value());
    }
    Write("manifest.json", source_->Get(first_.manifest).value());
  }
  void Write(const std::string& name, const std::string& bytes) {
    ASSERT_TRUE(MakeFolders(folder_).ok());
    ASSERT_TRUE(WriteFileAtomic(folder_ / name, bytes).ok());
  }
  void WriteManifest(const storage::ModelManifest& manifest) {
    Write("manifest.json", storage::ToJson(manifest).dump());
  }
  Result<StoredFolder> Import() {
    return ImportOpened(*target_, [&](const std::string& name) -> Result<UniqueFd> {
      UniqueFd fd(::open((folder_ / name).c_str(), O_RDONLY | O_CLOEXEC));
      if (!fd.valid()) return NotFound(name + ": missing");
      return fd;
    });
  }

  TempFolder scratch_{"stored"};
  const fs::path folder_ = scratch_.path() / "run";
  std::unique_ptr<storage::ObjectStore> source_ =
      storage::ObjectStore::Open(scratch_.path() / "source").value();
  std::unique_ptr<storage::ObjectStore> target_ =
      storage::ObjectStore::Open(scratch_.path() / "target").value();
  StoredFolder first_;
};

TEST_F(StoredFolderTest, TheModelAndAllItsFilesAreStored) {
  // There is a config.json too: what the run left counts, not what could be read anew.
  ASSERT_TRUE(first_.content.files.contains("config.json"));
  const auto model = Import();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(model->manifest, first_.manifest);
  EXPECT_THAT(model->objects, ::testing::UnorderedElementsAreArray(first_.objects));
  for (const auto& digest : first_.objects) EXPECT_TRUE(target_->Get(digest).ok());
}

TEST_F(StoredFolderTest, AnArchiveOfItIsTheSame) {
  const auto packed = PackFolder(folder_, 1 << 30);
  ASSERT_TRUE(packed.ok()) << packed.status().ToString();
  Write("packed.tar", *packed);
  const auto model =
      ImportArchive(*target_, UniqueFd(::open((folder_ / "packed.tar").c_str(), O_RDONLY)));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(model->manifest, first_.manifest);
}

TEST_F(StoredFolderTest, AFileThatIsAnotherOrMissingIsFound) {
  const std::string weights = ReadFile(folder_ / "weights.safetensors").value();
  Write("weights.safetensors", weights + " ");
  EXPECT_EQ(Import().status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(Import().status().message(),
              HasSubstr("weights.safetensors: is not the file that manifest.json names"));
  fs::remove(folder_ / "weights.safetensors");
  EXPECT_THAT(Import().status().message(), HasSubstr("weights.safetensors"));
  fs::rename(folder_ / "manifest.json", folder_ / "other.json");
  fs::rename(folder_ / "config.json", folder_ / "other2.json");
  EXPECT_THAT(Import().status().message(), HasSubstr("config.json: missing; nor is there a mani"));
  Write("manifest.json", "{}");
  EXPECT_THAT(Import().status().message(), HasSubstr("manifest.json: lepton.model"));
  EXPECT_FALSE(PackFolder(folder_, 1 << 30).ok());
}

TEST_F(StoredFolderTest, WeightsOfAnotherArchitectureAreRefused) {
  storage::ModelManifest manifest = first_.content;
  auto model = nlohmann::json::parse(manifest.model_spec_json);
  model["mlp_width"] = model["mlp_width"].get<int>() + 1;
  manifest.model_spec_json = model.dump();
  WriteManifest(manifest);
  EXPECT_EQ(Import().status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(Import().status().message(), HasSubstr("the stored model's shape is"));
}

TEST_F(StoredFolderTest, AManifestCannotNameFilesElsewhere) {
  for (const char* name : {"../secret", "/etc/passwd", ".hidden", "a\\b", ""}) {
    storage::ModelManifest manifest = first_.content;
    manifest.files = {{name, Sha256Hex("x")}};
    WriteManifest(manifest);
    EXPECT_THAT(Import().status().message(), HasSubstr("must have plain names")) << name;
  }
}

}  // namespace
}  // namespace lepton::worker
