#include "storage/datasets/import.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/formats/safetensors/safetensors.h"
#include "storage/datasets/folder_pack.h"
#include "storage/datasets/formats.h"
#include "storage/datasets/image_index.h"
#include "tests/storage/pictures.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
constexpr auto kInvalid = StatusCode::kInvalidArgument;

class ImportTest : public testing::Test {
 protected:
  ImportTest() : objects_(ObjectStore::Open(folder_.path() / "store").value()) {}

  Result<ImportedDataset> Import(std::string_view bytes, ImportOptions options = {}) {
    return ImportFile(*objects_, ByteSource::FromMemory(bytes), options);
  }
  Result<ImportedDataset> ImportTree(const fs::path& path, ImportOptions options = {}) {
    return ImportFolder(*objects_, UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY)), options);
  }
  fs::path Write(const std::string& name, std::string_view bytes) {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  std::string Object(const Digest& digest) { return objects_->Get(digest).value(); }
  ImageIndex Index(const DatasetManifest& m) {
    return ImageIndexFromSafetensors(Object(m.table), static_cast<int64_t>(Object(m.source).size()),
                                     static_cast<int64_t>(m.classes.size()))
        .value();
  }

  TempFolder folder_;
  std::unique_ptr<ObjectStore> objects_;
};

template <typename T>
std::string Raw(std::initializer_list<T> ids) {
  return {reinterpret_cast<const char*>(ids.begin()), ids.size() * sizeof(T)};
}

TEST_F(ImportTest, TheSuffixDecidesElseTheFirstBytes) {
  const auto guess = [](const char* path, std::string_view start) {
    return GuessFormat(path, start).value();
  };
  EXPECT_EQ(guess("/a/B.CSV", ""), "csv");
  EXPECT_EQ(guess("x.ndjson", ""), "jsonl");
  EXPECT_EQ(guess("x.txt", "{"), "text");
  EXPECT_EQ(guess("train.bin", ""), "tokens");
  EXPECT_EQ(guess("x.tar.gz", ""), "images");
  EXPECT_EQ(guess("x", "\xEF\xBB\xBF {\"a\": 1}"), "jsonl");
  EXPECT_EQ(guess("x", "a,b\n1,2\n"), "csv");
  EXPECT_EQ(guess("x", "To be\nor not, to be"), "text");
  EXPECT_EQ(guess("x", "PK\x03\x04..."), "images");
  EXPECT_THAT(GuessFormat("x", std::string_view("\1\0\2\0", 4)), Fails(kInvalid, "format: "));
  EXPECT_THAT(Import("a", {.format = "xml"}), Fails(kInvalid, "format: \"xml\" is unknown"));
}

TEST_F(ImportTest, TabSeparatedValuesAndJsonLinesBecomeTables) {
  const auto tsv = Import("a\tb\n1\tx,y\n2\tz\n", {.path = "t.tsv"});
  ASSERT_THAT(tsv, IsOk());
  EXPECT_EQ(tsv->manifest.columns.size(), 2u);
  EXPECT_THAT(tsv->manifest.Find("b")->classes, ElementsAre("x,y", "z"));
  const auto jsonl = Import("{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"y\"}\n", {.path = "t.jsonl"});
  ASSERT_THAT(jsonl, IsOk());
  EXPECT_EQ(jsonl->manifest.format, "jsonl");
  EXPECT_EQ(jsonl->manifest.kind, DatasetKind::kTable);
  EXPECT_EQ(TableFromSafetensors(Object(jsonl->manifest.table)).value().rows, 2);
  EXPECT_THAT(Import("a,b\n", {.limits = {.table_bytes = 3}}),
              Fails(StatusCode::kResourceExhausted, "limit is 3"));
}

TEST_F(ImportTest, LongTextsAreNoClassesAndShortInTheProfile) {
  const std::string text(5000, 'x');
  const auto imported = Import("t,label\n" + text + ",a\nshort,b\n");
  ASSERT_THAT(imported, IsOk());
  EXPECT_TRUE(imported->manifest.Find("t")->classes.empty());
  EXPECT_EQ(imported->manifest.Find("label")->classes.size(), 2u);
  EXPECT_LT(imported->manifest.profile_json.size(), 2000u);
  const auto profile = nlohmann::json::parse(imported->manifest.profile_json);
  EXPECT_EQ(profile["columns"][0]["bytes"]["max"], 5000);
}

TEST_F(ImportTest, TextIsStoredAsItIsAndCounted) {
  // Over a megabyte, so that pieces end within characters.
  std::string text;
  while (text.size() < 2'500'000) text += "\xC3\xA9t\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80\n";
  text += "end";
  const auto imported = Import(text, {.path = "a.txt"});
  ASSERT_THAT(imported, IsOk());
  EXPECT_EQ(imported->manifest.kind, DatasetKind::kText);
  EXPECT_EQ(Object(imported->manifest.source), text);
  const int64_t lines = std::count(text.begin(), text.end(), '\n') + 1;
  EXPECT_EQ(imported->manifest.rows, lines);
  const auto profile = nlohmann::json::parse(imported->manifest.profile_json);
  EXPECT_EQ(profile["characters"], (lines - 1) * 8 + 3);
  EXPECT_THAT(imported->manifest.DataObjects(), ElementsAre(imported->manifest.source));

  std::string bad = text;
  bad[bad.size() - 5] = '\xFF';
  const std::string line = "line " + std::to_string(lines - 1) + ": bytes that are not UTF-8";
  EXPECT_THAT(Import(bad, {.format = "text"}), Fails(kInvalid, line));
  EXPECT_THAT(Import("ab\n\xC3", {.format = "text"}), Fails(kInvalid, "line 2: bytes"));
  EXPECT_THAT(Import("", {.format = "text"}), Fails(kInvalid, "empty"));
}

TEST_F(ImportTest, RawTokensAreIdsAlone) {
  const auto imported = Import(Raw<uint16_t>({5, 50256, 0, 50256}), {.path = "train.bin"});
  ASSERT_THAT(imported, IsOk());
  const DatasetManifest& m = imported->manifest;
  EXPECT_EQ(m.kind, DatasetKind::kTokens);
  EXPECT_EQ(m.rows, 4);
  EXPECT_EQ(m.token_bytes, 2);
  EXPECT_EQ(m.max_token, 50256);
  EXPECT_EQ(m.max_token_at, 1);
  EXPECT_EQ(Object(m.source), Raw<uint16_t>({5, 50256, 0, 50256}));

  const auto wide = Import(Raw<uint32_t>({7, 100'000}), {.format = "tokens", .token_type = "u32"});
  ASSERT_THAT(wide, IsOk());
  EXPECT_EQ(wide->manifest.token_bytes, 4);
  EXPECT_EQ(wide->manifest.max_token, 100'000);
  EXPECT_THAT(Import("abc", {.format = "tokens"}), Fails(kInvalid, "3 bytes"));
  EXPECT_THAT(Import("", {.format = "tokens"}), Fails(kInvalid, "no tokens"));
  EXPECT_THAT(Import(Raw<uint32_t>({1, 0x80000000u}), {.format = "tokens", .token_type = "u32"}),
              Fails(kInvalid, "token 1 is 2147483648"));
}

TEST_F(ImportTest, TokensOfASafetensorsFileAreConverted) {
  const std::string ids = Raw<int64_t>({3, 70'000, 1});
  const auto file = [&](std::vector<safetensors::TensorView> tensors) {
    return safetensors::Serialize(tensors).value();
  };
  const auto imported = Import(file({{"ids", "I64", {3}, ids}}), {.path = "x.safetensors"});
  ASSERT_THAT(imported, IsOk());
  EXPECT_EQ(Object(imported->manifest.source), Raw<uint32_t>({3, 70'000, 1}));
  EXPECT_EQ(imported->manifest.max_token_at, 1);
  const std::string small = Raw<uint16_t>({9, 8});
  const auto found = Import(file({{"ids", "U16", {2}, small}}), {.format = "tokens"});
  ASSERT_THAT(found, IsOk());
  EXPECT_EQ(Object(found->manifest.source), small);

  const std::string negative = Raw<int32_t>({4, -1});
  EXPECT_THAT(Import(file({{"ids", "I32", {2}, negative}}), {.path = "x.safetensors"}),
              Fails(kInvalid, "token 1 is -1"));
  EXPECT_THAT(Import(file({{"a", "U16", {1, 2}, small}}), {.path = "x.safetensors"}),
              Fails(kInvalid, "2 dimensions"));
  EXPECT_THAT(
      Import(file({{"a", "U16", {2}, small}, {"b", "U16", {2}, small}}), {.path = "x.safetensors"}),
      Fails(kInvalid, "has 2"));
}

TEST_F(ImportTest, AFolderOfPicturesHasAClassASubfolder) {
  Write("pets/dog/b.png", pictures::Png(4, 3, 10));
  Write("pets/dog/deep/er/c.jpg", pictures::Jpeg(6, 5, 20));
  Write("pets/cat/a.PNG", pictures::Png(2, 2, 30));
  Write("pets/cat/.hidden.png", "junk");
  Write("pets/README.txt", "about");
  const auto imported = ImportTree(folder_.path() / "pets");
  ASSERT_THAT(imported, IsOk());
  const DatasetManifest& m = imported->manifest;
  EXPECT_EQ(m.kind, DatasetKind::kImages);
  EXPECT_EQ(m.rows, 3);
  EXPECT_THAT(m.classes, ElementsAre("cat", "dog"));
  const ImageIndex index = Index(m);
  EXPECT_THAT(index.labels, ElementsAre(0, 1, 1));
  EXPECT_EQ(index.Path(2), "dog/deep/er/c.jpg");
  EXPECT_EQ(index.widths[2], 6);
  const std::string source = Object(m.source);
  EXPECT_EQ(index.File(source, 1), pictures::Png(4, 3, 10));
  const auto profile = nlohmann::json::parse(m.profile_json);
  EXPECT_EQ(profile["files_skipped"], 2);
  EXPECT_EQ(profile["width"]["max"], 6);
  EXPECT_EQ(ToJson(DatasetManifestFromJson(Object(imported->digest)).value()), ToJson(m));
}

TEST_F(ImportTest, APictureThatCannotBeTrainedOnIsNamed) {
  const auto error = [&](const std::string& name, std::string_view bytes) {
    Write("set/ok/a.png", pictures::Png(2, 2, 1));
    const fs::path path = Write("set/" + name, bytes);
    const auto imported = ImportTree(folder_.path() / "set", {.limits = {.picture_bytes = 5000}});
    fs::remove_all(folder_.path() / "set");
    return imported;
  };
  const std::string png = pictures::Png(20, 20, 1);
  EXPECT_THAT(error("x/cut.png", png.substr(0, png.size() - 20)),
              Fails(kInvalid, "x/cut.png: damaged PNG"));
  EXPECT_THAT(error("x/fake.jpg", "hello"), Fails(kInvalid, "x/fake.jpg: neither"));
  EXPECT_THAT(error("x/b.webp", "RIFF"), Fails(kInvalid, "x/b.webp: only PNG and JPEG"));
  EXPECT_THAT(error("top.png", png), Fails(kInvalid, "top.png: lies outside of the classes"));
  EXPECT_THAT(error("x/huge.png", std::string(5001, 'x')), Fails(kInvalid, "x/huge.png: has 5001"));
  Write("set/ok/a.png", png);
  fs::create_symlink("/etc/passwd", folder_.path() / "set/ok/link.png");
  EXPECT_THAT(ImportTree(folder_.path() / "set"), Fails(kInvalid, "ok/link.png: is a symbolic"));
  fs::create_directories(folder_.path() / "empty");
  EXPECT_THAT(ImportTree(folder_.path() / "empty"), Fails(kInvalid, "there are no PNG or JPEG"));
}

TEST_F(ImportTest, AFolderIsPackedForUploadAsItsPicturesInOrder) {
  Write("pets/dog/b.png", pictures::Png(4, 3, 10));
  Write("pets/cat/a.jpg", pictures::Jpeg(2, 2, 30));
  Write("pets/notes.txt", "about");
  const auto packed = PackFolder(folder_.path() / "pets", 1 << 20);
  ASSERT_THAT(packed, IsOk());
  const auto uploaded = Import(*packed, {.path = "pets.tar"});
  const auto local = ImportTree(folder_.path() / "pets");
  ASSERT_THAT(uploaded, IsOk());
  ASSERT_THAT(local, IsOk());
  EXPECT_EQ(uploaded->manifest.source, local->manifest.source);
  EXPECT_EQ(uploaded->manifest.table, local->manifest.table);
  EXPECT_THAT(PackFolder(folder_.path() / "pets", 100),
              Fails(StatusCode::kResourceExhausted, "more than 100 bytes"));
  EXPECT_THAT(PackFolder(folder_.path() / "none", 100), Fails(StatusCode::kNotFound, "none"));
}

struct Entry {
  std::string path, bytes;
  unsigned type = AE_IFREG;
};
std::string Pack(const std::vector<Entry>& entries, bool zip) {
  struct archive* out = archive_write_new();
  std::string bytes(1 << 20, '\0');
  size_t used = 0;
  if (zip) {
    archive_write_set_format_zip(out);
  } else {
    archive_write_set_format_pax_restricted(out);
    archive_write_add_filter_gzip(out);
  }
  archive_write_open_memory(out, bytes.data(), bytes.size(), &used);
  for (const Entry& item : entries) {
    archive_entry* entry = archive_entry_new();
    archive_entry_set_pathname(entry, item.path.c_str());
    archive_entry_set_filetype(entry, item.type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, static_cast<la_int64_t>(item.bytes.size()));
    if (item.type == AE_IFLNK) archive_entry_set_symlink(entry, "/etc/passwd");
    archive_write_header(out, entry);
    archive_write_data(out, item.bytes.data(), item.bytes.size());
    archive_entry_free(entry);
  }
  archive_write_close(out);
  archive_write_free(out);
  bytes.resize(used);
  return bytes;
}

TEST_F(ImportTest, ArchivesAreReadAsTheirFolders) {
  const std::vector<Entry> entries = {{"./pets/", "", AE_IFDIR},
                                      {"./pets/cat/a.png", pictures::Png(2, 2, 1)},
                                      {"pets/dog/b.jpg", pictures::Jpeg(3, 3, 2)}};
  Write("pets/cat/a.png", entries[1].bytes);
  Write("pets/dog/b.jpg", entries[2].bytes);
  const auto folder = ImportTree(folder_.path() / "pets");
  ASSERT_THAT(folder, IsOk());
  for (const bool zip : {false, true}) {
    const std::string packed = Pack(entries, zip);
    const auto imported = Import(packed, {.path = zip ? "p.zip" : "p.tar.gz"});
    ASSERT_THAT(imported, IsOk());
    EXPECT_THAT(imported->manifest.classes, ElementsAre("cat", "dog"));
    EXPECT_EQ(imported->manifest.source, folder->manifest.source);

    const fs::path path = Write("packed", packed);
    auto file = ByteSource::FromFile(UniqueFd(::open(path.c_str(), O_RDONLY)));
    ASSERT_THAT(file, IsOk());
    const auto from_file = ImportFile(*objects_, *std::move(file), {});
    ASSERT_THAT(from_file, IsOk());
    EXPECT_EQ(from_file->manifest.table, imported->manifest.table);
  }
}

// Whatever the locale of the process is, which tests and servers leave at C.
TEST_F(ImportTest, NamesOfAnyScriptArePackedAndRead) {
  const std::string one = "schön/é.png", two = "猫/1.png";
  Write("pets/" + one, pictures::Png(2, 2, 1));
  Write("pets/" + two, pictures::Png(3, 3, 2));
  const auto folder = ImportTree(folder_.path() / "pets");
  ASSERT_THAT(folder, IsOk());
  EXPECT_THAT(folder->manifest.classes, ElementsAre("schön", "猫"));
  const auto packed = PackFolder(folder_.path() / "pets", 1 << 20);
  ASSERT_THAT(packed, IsOk());
  // A zip that says that its names are UTF-8, and one that says nothing.
  std::string zip = Pack(
      {{"sch__n/__.png", pictures::Png(2, 2, 1)}, {"___/1.png", pictures::Png(3, 3, 2)}}, true);
  for (const auto& [from, to] :
       std::map<std::string, std::string>{{"sch__n/__.png", one}, {"___/1.png", two}}) {
    for (size_t at = 0; (at = zip.find(from, at)) != zip.npos; at += to.size()) {
      zip.replace(at, to.size(), to);
    }
  }
  std::string flagged = zip;
  for (const auto& [header, flags] : {std::pair("PK\3\4", 6), std::pair("PK\1\2", 8)}) {
    for (size_t at = 0; (at = flagged.find(header, at)) != flagged.npos; at += 4) {
      flagged[at + flags + 1] |= 8;
    }
  }
  for (const std::string& archive : {*packed, zip, flagged}) {
    const auto imported = Import(archive, {.format = "images"});
    ASSERT_THAT(imported, IsOk());
    EXPECT_EQ(imported->manifest.classes, folder->manifest.classes);
    EXPECT_EQ(imported->manifest.table, folder->manifest.table);
  }
}

TEST_F(ImportTest, NamesThatAreNotUtf8AreRefused) {
  Write("pets/sch\xF6n/1.png", pictures::Png(2, 2, 1));
  EXPECT_THAT(ImportTree(folder_.path() / "pets"), Fails(kInvalid, "1.png: the name is not UTF-8"));
}

TEST_F(ImportTest, ArchivesThatLieOrLeadOutsideAreRefused) {
  const std::string png = pictures::Png(2, 2, 1);
  const auto error = [&](const std::vector<Entry>& entries) {
    return Import(Pack(entries, false), {.path = "p.tgz"});
  };
  EXPECT_THAT(error({{"../x/a.png", png}}), Fails(kInvalid, "leads out of it"));
  EXPECT_THAT(error({{"/x/a.png", png}}), Fails(kInvalid, "absolute path"));
  EXPECT_THAT(error({{"x/a.png", "", AE_IFLNK}}), Fails(kInvalid, "x/a.png: is a link"));
  std::string cut = Pack({{"x/a.png", std::string(5000, 'x') + png}}, false);
  cut.resize(cut.size() / 2);
  EXPECT_THAT(Import(cut, {.path = "p.tgz"}), Fails(kInvalid, ""));
  EXPECT_THAT(Import("no archive at all", {.path = "p.zip"}), Fails(kInvalid, "archive"));
}

TEST_F(ImportTest, AnIndexThatDoesNotFitItsObjectIsRefused) {
  Write("p/a/1.png", pictures::Png(2, 2, 1));
  const auto imported = ImportTree(folder_.path() / "p");
  ASSERT_THAT(imported, IsOk());
  const std::string bytes = Object(imported->manifest.table);
  const auto size = static_cast<int64_t>(Object(imported->manifest.source).size());
  EXPECT_THAT(ImageIndexFromSafetensors(bytes, size, 1), IsOk());
  EXPECT_THAT(ImageIndexFromSafetensors(bytes, size - 1, 1), Fails(kInvalid, "do not agree"));
  EXPECT_THAT(ImageIndexFromSafetensors(bytes, size, 0), Fails(kInvalid, "no class"));
}

TEST_F(ImportTest, ProgressIsToldWhileItGoesOn) {
  std::string text(5'000'000, 'x');
  std::vector<uint64_t> done;
  ImportOptions options{.format = "text"};
  options.progress = [&](const ImportProgress& progress) {
    EXPECT_EQ(progress.total, text.size());
    EXPECT_EQ(progress.phase, "reading text");
    done.push_back(progress.done);
    return true;
  };
  ASSERT_THAT(Import(text, options), IsOk());
  ASSERT_FALSE(done.empty());
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
}

TEST_F(ImportTest, OneThatIsStoppedEndsAtOnce) {
  int told = 0;
  ImportOptions options;
  options.progress = [&](const ImportProgress&) { return ++told < 2; };
  for (const char* format : {"text", "tokens"}) {
    told = 0;
    options.format = format;
    EXPECT_THAT(Import(std::string(5'000'000, 'x'), options),
                Fails(StatusCode::kCancelled, "stopped"));
    EXPECT_EQ(told, 2);
  }
  for (const char* name : {"1", "2", "3"}) {
    Write(std::string("p/a/") + name + ".png", pictures::Png(2, 2, 1));
  }
  told = 0;
  options.format = "images";
  UniqueFd folder(::open((folder_.path() / "p").c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_THAT(ImportFolder(*objects_, std::move(folder), options),
              Fails(StatusCode::kCancelled, "stopped"));
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace lepton::storage
