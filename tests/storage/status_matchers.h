// gMock matchers for Status and Result.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "runtime/base/status.h"

namespace lepton {

inline const Status& AsStatus(const Status& status) {
  return status;
}
template <typename T>
const Status& AsStatus(const Result<T>& result) {
  return result.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << AsStatus(arg).ToString();
  return AsStatus(arg).ok();
}

// The code, and a part of the message.
MATCHER_P2(Fails, code, text, "") {
  *result_listener << AsStatus(arg).ToString();
  return AsStatus(arg).code() == code && AsStatus(arg).message().find(text) != std::string::npos;
}

// Failures print the status rather than the object's bytes.
inline void PrintTo(const Status& status, std::ostream* out) {
  *out << status.ToString();
}
template <typename T>
void PrintTo(const Result<T>& result, std::ostream* out) {
  *out << result.status().ToString();
}

}  // namespace lepton
