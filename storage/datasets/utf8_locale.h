// libarchive turns names into the characters of the locale and back, and fails for those that it
// lacks; programs that never call setlocale have "C", which is ASCII.
#pragma once

#include <locale.h>
#include <clocale>

namespace lepton::storage {

// While it lives, this thread's characters are UTF-8, whatever the process's are. Without such a
// locale on the machine (glibc has one built in) nothing changes.
class Utf8Locale {
 public:
  Utf8Locale() : own_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (own_ != nullptr) before_ = ::uselocale(own_);
  }
  ~Utf8Locale() {
    if (own_ == nullptr) return;
    ::uselocale(before_);
    ::freelocale(own_);
  }
  Utf8Locale(const Utf8Locale&) = delete;
  Utf8Locale& operator=(const Utf8Locale&) = delete;

 private:
  locale_t own_ = nullptr, before_ = nullptr;
};

}  // namespace lepton::storage
