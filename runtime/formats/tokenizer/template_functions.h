// The filters, tests, methods and conversions of chat templates. Internal: they throw
// TemplateError, also for a name that is none of theirs.
#pragma once

#include <string>
#include <vector>

#include "runtime/formats/tokenizer/template_syntax.h"

namespace lepton::tokenizer {

struct Arguments {
  std::vector<TemplateValue> positional;
  std::vector<std::pair<std::string, TemplateValue>> named;
  // The argument at `index` or of `name`; undefined when neither is there.
  TemplateValue Get(size_t index, std::string_view name) const;
};

bool IsTrue(const TemplateValue& value);
// As Python's str(); FailAt for lists and dicts, whose Python form no model was trained on.
std::string ToText(const TemplateValue& value, int line);
TemplateValue Undefined();
TemplateValue ApplyFilter(const std::string& name, const TemplateValue& value,
                          const Arguments& arguments, int line);
// What a `for` would walk: characters of a string, keys of a dict, nothing of what is undefined.
bool HasItems(const TemplateValue& value);
size_t CountItems(const TemplateValue& value);
// Whether the filter takes a list item by item, with its arguments for each.
bool WalksItems(std::string_view filter);
bool ApplyTest(const std::string& name, const TemplateValue& value, const Arguments& arguments,
               int line);
bool Equal(const TemplateValue& a, const TemplateValue& b);
// `item in whole`
bool Contains(const TemplateValue& item, const TemplateValue& whole, int line);
TemplateValue CallMethod(const std::string& name, const TemplateValue& value,
                         const Arguments& arguments, int line);
// value[begin:end:step], of the code points of a string or the items of a list; bounds that are
// undefined are Python's.
TemplateValue Slice(const TemplateValue& value, const TemplateValue& begin,
                    const TemplateValue& end, const TemplateValue& step, int line);

}  // namespace lepton::tokenizer
