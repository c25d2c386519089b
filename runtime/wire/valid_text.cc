#include "runtime/wire/valid_text.h"

#include <string>
#include <vector>

#include "runtime/base/utf8.h"

namespace lepton::wire {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

bool IsText(const FieldDescriptor& field) {
  return field.type() == FieldDescriptor::TYPE_STRING;
}

bool IsMessage(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
}

// Looks before it changes anything: only the latter makes a map a list and back.
bool IsValid(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  std::string scratch;
  for (const FieldDescriptor* field : fields) {
    if (!IsText(*field) && !IsMessage(*field)) continue;
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (IsMessage(*field)) {
        if (!IsValid(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, i)
                                          : reflection.GetMessage(message, field))) {
          return false;
        }
        continue;
      }
      const std::string& text =
          field->is_repeated() ? reflection.GetRepeatedStringReference(message, field, i, &scratch)
                               : reflection.GetStringReference(message, field, &scratch);
      if (InvalidUtf8At(text)) return false;
    }
  }
  return true;
}

void Repair(Message& message) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < count; ++i) {
      if (IsMessage(*field)) {
        Repair(*(field->is_repeated() ? reflection.MutableRepeatedMessage(&message, field, i)
                                      : reflection.MutableMessage(&message, field)));
      } else if (IsText(*field) && field->is_repeated()) {
        reflection.SetRepeatedString(
            &message, field, i,
            ReplaceInvalidUtf8(reflection.GetRepeatedString(message, field, i)));
      } else if (IsText(*field)) {
        reflection.SetString(&message, field,
                             ReplaceInvalidUtf8(reflection.GetString(message, field)));
      }
    }
  }
}

}  // namespace

void MakeTextValid(Message& message) {
  if (!IsValid(message)) Repair(message);
}

}  // namespace lepton::wire
