// The data of a job: where it is, what it is read as, and how rows become what a model takes.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/status.h"

namespace lepton::spec {

struct SplitSpec {
  double train = 0.8;
  double validation = 0.1;  // test gets the rest: 1 - train - validation
  uint64_t seed = 0;
};

// How pictures become pixels. Sizes of 0 are the model's, or the pictures' own if all are alike.
struct PictureSpec {
  int64_t channels = 0, height = 0, width = 0;
  std::vector<double> mean, std;  // a channel, or one for all; empty: measured on the train part
  std::string fit = "stretch";    // stretch | crop: how files get the size
  bool flip = false;              // training: mirrored or not, by chance
  int64_t shift = 0;              // training: moved by up to so many pixels, zeros come in
};

struct DatasetSpec {
  // One of the two. `uri`: file:///path, a file or a folder. `name`: a registered dataset,
  // "digits", "digits@3".
  std::string uri;
  std::string name;
  std::string format = "auto";      // of uri: auto | csv | jsonl | text | tokens | images
  std::string token_type = "auto";  // of raw token files: auto (u16) | u16 | u32
  std::string label = "target";     // tables
  std::string text, text_pair;      // tables: the columns of text to read instead of numbers
  std::string messages;             // tables: the column of chats that a batch job goes on from
  std::string tokenizer;            // "bytes", file:///tokenizer.json, or empty: the model's
  int64_t context = 0;              // tokens of a row at most; 0: the model's limit, else 128
  PictureSpec image;                // tables: if it has a size, the columns are pixels
  SplitSpec split;
  std::string normalize = "standard";  // standard | none
  std::string missing = "mean";        // mean | error: empty numeric cells

  // Whether the columns of a table are pixels.
  bool pixels() const { return image.height > 0 || image.width > 0; }
};

// What must hold between the fields. `loss` as of the job.
Status CheckDataset(const DatasetSpec& dataset, const std::string& loss);

}  // namespace lepton::spec
