// Errors as values. A code says what the caller should do, not where the failure was; the message
// says what failed, and each layer that adds knowledge prefixes it once with WithContext:
//   job j7: checkpoint 300: objects/ab/cd...: no space left on device
// No exception crosses a target. Ownership: a Status owns its message. Threads: immutable values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace lepton {

enum class StatusCode {
  kOk = 0,
  kInvalidArgument,     // the caller's input is wrong: fix it; retrying is useless
  kNotFound,            // what was named does not exist
  kAlreadyExists,       // what was to be created exists, or the name is taken
  kFailedPrecondition,  // right request, wrong moment or state: change the state first
  kPermissionDenied,    // the caller may not do this; other credentials could
  kResourceExhausted,   // a limit, a quota or a disk is full: free some, then retry
  kDeadlineExceeded,    // no answer in time: retry with a longer deadline
  kUnavailable,         // the other side is away: retry with back-off
  kAborted,             // the group or transaction is gone: rebuild it, then redo
  kCancelled,           // somebody asked to stop: give up quietly
  kDeviceFailed,        // this GPU cannot be used any more: go on without it, on another
  kDataLoss,            // stored bytes are corrupt: restore from another copy
  kInternal,            // our own bug or an unknown failure: report it
};

// "INVALID_ARGUMENT" and so on: the spelling of logs, wire and HTTP problem documents.
std::string_view StatusCodeName(StatusCode code);
// The reverse; kInternal for an unknown name.
StatusCode StatusCodeFromName(std::string_view name);

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return {}; }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // "INVALID_ARGUMENT: optimizer.lr: ..."; "OK".
  std::string ToString() const;
  // The same error as seen one layer up: "context: message". OK stays OK.
  Status WithContext(std::string_view context) const;

  friend bool operator==(const Status&, const Status&) = default;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

Status InvalidArgument(std::string message);
Status NotFound(std::string message);
Status AlreadyExists(std::string message);
Status FailedPrecondition(std::string message);
Status PermissionDenied(std::string message);
Status ResourceExhausted(std::string message);
Status DeadlineExceeded(std::string message);
Status Unavailable(std::string message);
Status Aborted(std::string message);
Status Cancelled(std::string message);
Status DeviceFailed(std::string message);
Status DataLoss(std::string message);
Status Internal(std::string message);
// From errno: ENOENT is kNotFound, ENOSPC/EDQUOT kResourceExhausted, EACCES/EPERM/EROFS
// kPermissionDenied, EEXIST kAlreadyExists, ETIMEDOUT kDeadlineExceeded, ECONNREFUSED and kin
// kUnavailable, else kInternal. The message is "what: strerror".
Status ErrnoStatus(int error_number, std::string_view what);

namespace internal {
[[noreturn]] void DieOnBadResult(const Status& status);
}

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit by design
    if (status_.ok()) status_ = Status(StatusCode::kInternal, "Result made from an OK status");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  // Calling these on an error is our own bug and ends the process with the status.
  T& value() & { return Check(), *value_; }
  const T& value() const& { return Check(), *value_; }
  T&& value() && { return Check(), std::move(*value_); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T value_or(T fallback) && { return ok() ? std::move(*value_) : std::move(fallback); }

 private:
  void Check() const {
    if (!value_) internal::DieOnBadResult(status_);
  }
  Status status_;
  std::optional<T> value_;
};

}  // namespace lepton

#define LEPTON_CONCAT_INNER(a, b) a##b
#define LEPTON_CONCAT(a, b) LEPTON_CONCAT_INNER(a, b)

// Returns from the enclosing function with the error, if there is one.
#define LEPTON_RETURN_IF_ERROR(expression)         \
  do {                                             \
    ::lepton::Status lepton_status = (expression); \
    if (!lepton_status.ok()) return lepton_status; \
  } while (false)

// LEPTON_ASSIGN_OR_RETURN(auto x, F()); assigns the value or returns the error.
#define LEPTON_ASSIGN_OR_RETURN(lhs, expression) \
  LEPTON_ASSIGN_OR_RETURN_IMPL(LEPTON_CONCAT(lepton_result_, __LINE__), lhs, expression)
#define LEPTON_ASSIGN_OR_RETURN_IMPL(result, lhs, expression) \
  auto result = (expression);                                 \
  if (!result.ok()) return result.status();                   \
  lhs = std::move(result).value()
