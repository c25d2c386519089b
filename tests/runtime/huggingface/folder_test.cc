// Folders that are damaged, incomplete or hostile: an error that names the file, never more.
#include "runtime/formats/huggingface/folder.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/formats/huggingface/folder_archive.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::huggingface {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A copy of a golden folder that a test may damage.
class FolderTest : public testing::Test {
 protected:
  void CopyGolden(const std::string& name) {
    fs::remove_all(folder());
    fs::copy(fs::path(LEPTON_GOLDENS) / name, folder(), fs::copy_options::recursive);
  }
  fs::path folder() const { return temp_.path() / "model"; }
  std::string Read(const std::string& file) { return ReadFile(folder() / file).value(); }
  void Write(const std::string& file, std::string_view bytes) {
    std::ofstream(folder() / file, std::ios::binary) << bytes;
  }
  Status Refused() { return ReadFolder(OpenFilesOf(folder()).value()).status(); }

  // A safetensors file with this header and so many bytes of data.
  static std::string FileOf(const std::string& header, size_t data) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>(header.size() >> (8 * i));
    return bytes + header + std::string(data, '\0');
  }

 private:
  TempFolder temp_{"huggingface"};
};

TEST_F(FolderTest, MissingPartsAreNamed) {
  EXPECT_EQ(OpenFilesOf("/no/such/folder").status().code(), StatusCode::kNotFound);
  CopyGolden("bert-texts");
  fs::remove(folder() / "model.safetensors");
  EXPECT_THAT(Refused().message(), HasSubstr("model.safetensors: missing, and so is"));
  fs::remove(folder() / "config.json");
  EXPECT_EQ(Refused().code(), StatusCode::kNotFound);
  EXPECT_THAT(Refused().message(), HasSubstr("config.json"));
  fs::create_directory(folder() / "config.json");
  EXPECT_THAT(Refused().message(), HasSubstr("config.json: is not a regular file"));
  fs::remove(folder() / "config.json");
  ASSERT_EQ(::mkfifo((folder() / "config.json").c_str(), 0600), 0);  // must not hang
  EXPECT_THAT(Refused().message(), HasSubstr("config.json: is not a regular file"));
}

TEST_F(FolderTest, DamagedWeightsAreNamed) {
  CopyGolden("gpt2-lm");
  const std::string whole = Read("model.safetensors");
  const auto says = [&](const std::string& bytes) {
    Write("model.safetensors", bytes);
    return std::string(Refused().message());
  };
  for (const size_t size : {size_t{0}, size_t{5}, size_t{100}, whole.size() - 1}) {
    EXPECT_THAT(says(whole.substr(0, size)), HasSubstr("model.safetensors: safetensors: ")) << size;
  }
  EXPECT_THAT(says(std::string(8, '\xff') + whole.substr(8)), HasSubstr("model.safetensors: "));
  EXPECT_THAT(says(FileOf(R"({"wte.weight": {"dtype": "F32", "shape": [4294967296, 4294967296],
                      "data_offsets": [0, 4]}})",
                          4)),
              HasSubstr("\"wte.weight\": shape is too large"));
  EXPECT_THAT(says(FileOf(R"({"wte.weight": {"dtype": "F32", "shape": [1099511627776],
                              "data_offsets": [0, 4]}})",
                          4)),
              HasSubstr("\"wte.weight\": has 4 bytes, but its shape needs"));
  EXPECT_THAT(says(FileOf(R"({"wte.weight": {"dtype": "I32", "shape": [1],
                              "data_offsets": [0, 4]}})",
                          4)),
              HasSubstr("\"wte.weight\": dtype I32 is not supported: must be F32, F16 or BF16"));
  EXPECT_THAT(says(FileOf(R"({"wte.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "transformer.wte.weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})",
                          8)),
              HasSubstr("a tensor of this name was there before"));
}

TEST_F(FolderTest, AnyDamageIsAnErrorAndNothingWorse) {
  CopyGolden("llama3-lm");
  const std::string index = Read("model.safetensors.index.json");
  const std::string shard = Read("model-00001-of-00002.safetensors");
  const size_t header =
      8 + static_cast<unsigned char>(shard[0]) + 256 * static_cast<unsigned char>(shard[1]);
  for (uint32_t i = 0; i < 300; ++i) {
    const auto random = RandomBlock({7, 1, 0, 0}, i);
    std::string damaged = i % 2 == 0 ? index : shard;
    const size_t places = i % 2 == 0 ? damaged.size() : header;
    damaged[random[0] % places] ^= static_cast<char>(1 + random[1] % 255);
    Write("model.safetensors.index.json", i % 2 == 0 ? damaged : index);
    Write("model-00001-of-00002.safetensors", i % 2 == 0 ? shard : damaged);
    (void)Refused();  // an error or, for a digit of a size that fits, none
  }
}

TEST_F(FolderTest, TheIndexIsNotTrusted) {
  CopyGolden("llama3-lm");
  const json whole = json::parse(Read("model.safetensors.index.json"));
  const auto says = [&](const auto& change) {
    json index = whole;
    change(index);
    Write("model.safetensors.index.json", index.dump());
    return std::string(Refused().message());
  };
  const auto elsewhere = HasSubstr("is not in a .safetensors file of this folder");
  for (const char* file : {"../model.safetensors", "/etc/passwd", "sub/a.safetensors",
                           "model.safetensors.index.json", "", ".hidden.safetensors"}) {
    EXPECT_THAT(says([&](json& i) { i["weight_map"]["lm_head.weight"] = file; }), elsewhere);
  }
  EXPECT_THAT(says([](json& i) { i["weight_map"]["lm_head.weight"] = 3; }), elsewhere);
  EXPECT_THAT(says([](json& i) {
                for (auto& file : i["weight_map"]) file = "other.safetensors";
              }),
              HasSubstr("other.safetensors"));
  EXPECT_THAT(says([](json& i) { i["weight_map"]["ghost"] = i["weight_map"]["lm_head.weight"]; }),
              HasSubstr("\"ghost\" is not in model-0000"));
  EXPECT_THAT(says([](json& i) { i["weight_map"].erase("lm_head.weight"); }),
              HasSubstr("\"lm_head.weight\" is not in model.safetensors.index.json"));
  EXPECT_THAT(says([](json& i) { i.erase("weight_map"); }), HasSubstr("weight_map: missing"));
  EXPECT_THAT(says([](json& i) { i["weight_map"] = json::object(); }),
              HasSubstr("weight_map: missing"));
  Write("model.safetensors.index.json", "[1");
  EXPECT_THAT(Refused().message(), HasSubstr("index.json: is not a JSON object"));
}

TEST_F(FolderTest, AnIndexOfManyNamesIsReadAtOnce) {
  CopyGolden("llama3-lm");
  constexpr int kNames = 100'000;
  std::string header = "{", map = "{\"weight_map\": {";
  for (int i = 0; i < kNames; ++i) {
    const std::string name = "\"a." + std::to_string(i) + "\": ";
    const char* const comma = i == 0 ? "" : ", ";
    header += comma + name + R"({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})";
    map += comma + name + "\"many.safetensors\"";
  }
  Write("many.safetensors", FileOf(header + "}", 0));
  Write("model.safetensors.index.json", map + "}}");
  const auto began = std::chrono::steady_clock::now();
  (void)Refused();
  // Each name against each would be some minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(20));
}

TEST_F(FolderTest, FurtherFilesAreKept) {
  CopyGolden("bert-texts");
  Write("tokenizer.json", "{}");
  Write("vocab.txt", "a\nb\n");
  Write("pytorch_model.bin", "pickle");
  const Folder read = ReadFolder(OpenFilesOf(folder()).value()).value();
  EXPECT_THAT(read.files, testing::UnorderedElementsAre("tokenizer.json", "vocab.txt"));
  EXPECT_EQ(read.config_json, Read("config.json"));
  std::string pieces;
  const OpenFile open = OpenFilesOf(folder()).value();
  ASSERT_TRUE(ReadPieces(open, "vocab.txt", 1, 4, [&](std::string_view piece) {
                pieces += piece;
                return Status::Ok();
              }).ok());
  EXPECT_EQ(pieces, "\nb\n");
  EXPECT_EQ(
      ReadPieces(open, "vocab.txt", 1, 5, [](std::string_view) { return Status::Ok(); }).code(),
      StatusCode::kDataLoss);
}

TEST_F(FolderTest, TheModulesOfSentenceTransformersSayWhatATextsNumbersAre) {
  CopyGolden("bert-sentences");
  const Folder whole = ReadFolder(OpenFilesOf(folder()).value()).value();
  const Config& config = whole.config;
  EXPECT_THAT(whole.files, testing::ElementsAre("config_sentence_transformers.json"));
  EXPECT_TRUE(config.sentence);
  EXPECT_EQ(config.text_tokens, 8);
  EXPECT_EQ(config.model.transformer.pool, "mean");
  EXPECT_TRUE(config.model.transformer.normalize);
  EXPECT_FALSE(config.model.transformer.pooler);
  const auto pool = [&](const char* pooling) {
    Write("1_Pooling/config.json", pooling);
    const auto read = ReadFolder(OpenFilesOf(folder()).value());
    return read.ok() ? read->config.model.transformer.pool : std::string(read.status().message());
  };
  EXPECT_EQ(pool(R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false})"),
            "first");
  EXPECT_EQ(pool(R"({"pooling_mode": "cls"})"), "first");
  EXPECT_EQ(pool(R"({"pooling_mode": "lasttoken", "embedding_dimension": 8})"), "last");
  EXPECT_EQ(pool(R"({"word_embedding_dimension": 8})"), "mean") << "as public code has it";
  EXPECT_THAT(pool(R"({"pooling_mode_cls_token": true})"),
              StartsWith("1_Pooling/config.json: pooling_mode_mean_tokens: one of it"));
  EXPECT_THAT(pool(R"({"pooling_mode_max_tokens": true})"),
              HasSubstr("pooling_mode_max_tokens: true is not supported: must be false"));
  EXPECT_THAT(pool(R"({"pooling_mode": "max"})"),
              HasSubstr("pooling_mode: max is not supported: must be cls, mean or lasttoken"));
  EXPECT_THAT(pool(R"({"word_embedding_dimension": 9})"),
              HasSubstr("word_embedding_dimension: 9 is not supported: must be 8"));
  EXPECT_THAT(pool(R"({"weights": 9})"), HasSubstr("weights: is not known"));
  EXPECT_THAT(pool("[]"), HasSubstr("1_Pooling/config.json: is not a JSON object"));
  fs::remove(folder() / "1_Pooling/config.json");
  EXPECT_THAT(Refused().message(), HasSubstr("1_Pooling/config.json: missing"));
}

TEST_F(FolderTest, ModulesThatAreNotComputedAreNamed) {
  const auto refused = [&](const char* file, const char* text) {
    CopyGolden("bert-sentences");
    Write(file, text);
    return std::string(Refused().message());
  };
  const auto module = [](const std::string& kind, const std::string& path) {
    return R"({"type": "sentence_transformers.models.)" + kind + R"(", "path": ")" + path + "\"}";
  };
  const std::string body = module("Transformer", ""), pooling = module("Pooling", "1_Pooling");
  const auto modules = [&](const std::string& list) {
    return refused("modules.json", ("[" + list + "]").c_str());
  };
  EXPECT_EQ(modules(body + ", " + pooling), "");
  EXPECT_THAT(modules(body), HasSubstr("modules.json: must be a list of Transformer, Pooling"));
  EXPECT_THAT(modules(body + ", " + pooling + ", " + module("Dense", "2_Dense")),
              HasSubstr("modules.json: 2: type \"sentence_transformers.models.Dense\" is not "
                        "supported: the modules must be Transformer, Pooling"));
  EXPECT_THAT(modules(module("Transformer", "0_Transformer") + ", " + pooling),
              HasSubstr("modules.json: 0: path: the body must be in the folder itself"));
  for (const char* path : {"", "..", "a/b", ".git"}) {
    EXPECT_THAT(modules(body + ", " + module("Pooling", path)),
                HasSubstr("modules.json: 1: path: is not the name of a folder"));
  }
  EXPECT_THAT(modules(body + R"(, {"type": "mine.Pooling", "path": "1_Pooling"})"),
              HasSubstr("type \"mine.Pooling\" is not supported"));
  EXPECT_THAT(modules("1, 2"), HasSubstr("modules.json: 0: type \"\" is not supported"));
  EXPECT_THAT(refused("modules.json", "{"), HasSubstr("modules.json: is not JSON"));
  EXPECT_THAT(refused("sentence_bert_config.json", R"({"max_seq_length": 0})"),
              StartsWith("sentence_bert_config.json: max_seq_length: 0 is not a whole number"));
  EXPECT_THAT(refused("sentence_bert_config.json", R"({"do_lower_case": true})"),
              HasSubstr("do_lower_case: true is not supported: must be false"));
  EXPECT_THAT(refused("config_sentence_transformers.json", R"({"default_prompt_name": "query"})"),
              HasSubstr("default_prompt_name: a prompt in front of each text is not supported"));
  const auto limits = [&](const char* text) { return refused("sentence_bert_config.json", text); };
  EXPECT_THAT(limits(R"({"transformer_task": "fill-mask"})"),
              HasSubstr("transformer_task: \"fill-mask\" is not supported"));
  EXPECT_THAT(limits(R"({"module_output_name": "sentence_embedding"})"),
              HasSubstr("module_output_name: \"sentence_embedding\" is not supported"));
  EXPECT_THAT(limits(R"({"modality_config": 1})"), HasSubstr("modality_config: is not an object"));
  EXPECT_THAT(limits(R"({"modality_config": {}})"), HasSubstr("modality_config.text: is missing"));
  EXPECT_THAT(limits(R"({"modality_config": {"text": []}})"),
              HasSubstr("modality_config.text: is not an object"));
  EXPECT_THAT(limits(R"({"modality_config": {"text": {"method": "get_text_features"}}})"),
              StartsWith("sentence_bert_config.json: modality_config.text.method: "
                         "\"get_text_features\" is not supported: must be \"forward\""));
  EXPECT_THAT(limits(R"({"modality_config": {"text": {"method_output_name": "logits"}}})"),
              HasSubstr("modality_config.text.method_output_name: \"logits\" is not supported"));
  EXPECT_THAT(limits(R"({"modality_config": {"text": {}, "image": {}}})"),
              HasSubstr("modality_config.image: is not known"));
  EXPECT_THAT(limits(R"({"processing_kwargs": {"text": {"padding": true}}})"),
              HasSubstr("processing_kwargs: {\"text\":{\"padding\":true}} is not supported"));
  EXPECT_THAT(limits(R"({"query_length": 32})"), HasSubstr("query_length: is not known"));
  EXPECT_THAT(limits(R"({"query_expansion": {}})"), HasSubstr("query_expansion: is not known"));
  // Of a classifier they say nothing.
  CopyGolden("bert-texts");
  Write("modules.json", "{");
  EXPECT_TRUE(Refused().ok());
}

TEST_F(FolderTest, LimitsAreReadInTheirNewerFormToo) {
  CopyGolden("qwen3-sentences");
  EXPECT_EQ(ReadFolder(OpenFilesOf(folder()).value()).value().config.text_tokens, 0);
  Write("sentence_bert_config.json", R"({
      "transformer_task": "feature-extraction", "module_output_name": "token_embeddings",
      "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"},
                          "message": {"method": "forward", "format": "structured"}},
      "processing_kwargs": {}, "unpad_inputs": true, "max_seq_length": 24,
      "query_length": null, "document_length": null, "query_expansion": null})");
  const auto read = ReadFolder(OpenFilesOf(folder()).value());
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(read->config.text_tokens, 24);
}

TEST_F(FolderTest, LimitsAreReadByTheirOlderNamesToo) {
  CopyGolden("bert-sentences");
  const auto read = [&] { return ReadFolder(OpenFilesOf(folder()).value()).value(); };
  const std::string older = "sentence_xlm-roberta_config.json";
  Write(older, R"({"max_seq_length": 6})");
  EXPECT_EQ(read().config.text_tokens, 8) << "the usual name comes first";
  fs::remove(folder() / "sentence_bert_config.json");
  EXPECT_EQ(read().config.text_tokens, 6);
  EXPECT_THAT(read().module_files, testing::Contains(older));
  Write("sentence_roberta_config.json", R"({"max_seq_length": 5})");
  EXPECT_EQ(read().config.text_tokens, 5);
  Write("sentence_roberta_config.json", R"({"max_seq_length": "5"})");
  EXPECT_THAT(Refused().message(), StartsWith("sentence_roberta_config.json: max_seq_length: "));
}

TEST_F(FolderTest, TextsAreCutWhereTheTokenizerSaysWhenTheModulesDoNot) {
  CopyGolden("bert-sentences");  // of a context of 10
  const auto tokens = [&](const char* limits, const std::string& most) {
    Write("sentence_bert_config.json", limits);
    Write("tokenizer_config.json", "{\"model_max_length\": " + most + ", \"padding\": true}");
    return ReadFolder(OpenFilesOf(folder()).value()).value().config.text_tokens;
  };
  EXPECT_EQ(tokens("{}", "6"), 6);
  EXPECT_EQ(tokens(R"({"max_seq_length": null})", "6.0"), 6);
  EXPECT_EQ(tokens(R"({"max_seq_length": 7})", "6"), 7);
  EXPECT_EQ(tokens("{}", "1000000000000000019884624838656"), 10);
  EXPECT_EQ(tokens("{}", "1e30"), 10);
  EXPECT_EQ(tokens("{}", "null"), 0);
  fs::remove(folder() / "sentence_bert_config.json");
  for (const char* wrong : {"0", "-1", "\"512\""}) {
    Write("tokenizer_config.json", std::string("{\"model_max_length\": ") + wrong + "}");
    EXPECT_THAT(Refused().message(), StartsWith("tokenizer_config.json: model_max_length: "));
  }
}

class ArchiveTest : public FolderTest {
 protected:
  std::string Pack() {
    const OpenFile open = OpenFilesOf(folder()).value();
    std::string bytes;
    EXPECT_TRUE(WriteArchive(open, FilesOf(ReadFolder(open).value()), [&](std::string_view piece) {
                  bytes += piece;
                  return Status::Ok();
                }).ok());
    return bytes;
  }
  Result<Folder> Unpack(const std::string& bytes) {
    Write("../archive.tar", bytes);
    UniqueFd fd(::open((folder() / "../archive.tar").c_str(), O_RDONLY));
    LEPTON_ASSIGN_OR_RETURN(const OpenFile open, OpenFilesOfArchive(std::move(fd)));
    return ReadFolder(open);
  }
  std::string Refusal(const std::string& bytes) { return Unpack(bytes).status().message(); }
};

TEST_F(ArchiveTest, AFolderComesOutOfItsArchive) {
  for (const char* golden : {"bert-texts", "llama3-lm", "bert-sentences"}) {
    CopyGolden(golden);
    Write("tokenizer.json", "{}");
    const Folder before = ReadFolder(OpenFilesOf(folder()).value()).value();
    const std::string bytes = Pack();
    EXPECT_TRUE(IsArchive(bytes));
    EXPECT_EQ(bytes.size() % 512, 0u);
    const auto after = Unpack(bytes);
    ASSERT_TRUE(after.ok()) << after.status().ToString();
    EXPECT_EQ(after->config_json, before.config_json);
    EXPECT_EQ(after->files, before.files);
    EXPECT_EQ(after->module_files, before.module_files);
    EXPECT_EQ(after->config.model.transformer.pool, before.config.model.transformer.pool);
    ASSERT_EQ(after->shards.size(), before.shards.size());
    for (size_t i = 0; i < before.shards.size(); ++i) {
      EXPECT_EQ(after->shards[i].file, before.shards[i].file);
      EXPECT_EQ(after->shards[i].tensors.size(), before.shards[i].tensors.size());
    }
  }
}

TEST_F(ArchiveTest, DamageIsNamed) {
  CopyGolden("bert-texts");
  const std::string whole = Pack();
  EXPECT_FALSE(IsArchive(whole.substr(0, 511)));
  EXPECT_FALSE(IsArchive(std::string(512, '\0')));
  EXPECT_EQ(Refusal(""), "archive: has no files");
  EXPECT_EQ(Refusal(std::string(1024, '\0')), "archive: has no files");
  EXPECT_THAT(Refusal(whole.substr(0, 2000)), HasSubstr("is cut short"));
  std::string changed = whole;
  changed[0] = 'C';
  EXPECT_THAT(Refusal(changed), HasSubstr("a header is damaged"));
  // A header with its checksum made right again.
  const auto with = [&](size_t at, std::string_view text) {
    std::string bytes = whole;
    bytes.replace(at, text.size(), text);
    int sum = 0;
    for (size_t i = 0; i < 512; ++i) {
      sum += i >= 148 && i < 156 ? ' ' : static_cast<unsigned char>(bytes[i]);
    }
    char octal[8];
    std::snprintf(octal, sizeof(octal), "%06o", sum);
    return bytes.replace(148, 7, octal, 7);
  };
  EXPECT_THAT(Refusal(with(0, "../config")), HasSubstr("is not the name of a file in a folder"));
  EXPECT_THAT(Refusal(with(0, "a/config.js")), HasSubstr("is not the name of a file in a folder"));
  EXPECT_THAT(Refusal(with(156, "2")), HasSubstr("is not a regular file"));  // a link
  EXPECT_THAT(Refusal(with(124, "77777777777")), HasSubstr("is cut short"));
  EXPECT_THAT(Refusal(with(124, "8")), HasSubstr("its size is not a number"));
  EXPECT_THAT(Refusal(with(124, std::string(12, '\xff'))), HasSubstr("its size is not a number"));
  const size_t second = 512 + (Read("config.json").size() + 511) / 512 * 512;
  EXPECT_THAT(Refusal(whole.substr(0, second) + whole),
              HasSubstr("\"config.json\" is there twice"));
}

}  // namespace
}  // namespace lepton::huggingface
