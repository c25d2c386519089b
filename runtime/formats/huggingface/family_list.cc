#include "runtime/formats/huggingface/family.h"

namespace lepton::huggingface {

const std::vector<Family>& Families() {
  static const auto* const families = [] {
    auto* list = new std::vector<Family>{BertFamily(),   DistilbertFamily(),  Gpt2Family(),
                                         ResnetFamily(), SmallResnetFamily(), VitFamily()};
    for (Family& family : LlamaFamilies()) list->push_back(std::move(family));
    return list;
  }();
  return *families;
}

}  // namespace lepton::huggingface
