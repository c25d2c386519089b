#include "runtime/base/status.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace lepton {
namespace {
constexpr std::string_view kNames[] = {"OK",
                                       "INVALID_ARGUMENT",
                                       "NOT_FOUND",
                                       "ALREADY_EXISTS",
                                       "FAILED_PRECONDITION",
                                       "PERMISSION_DENIED",
                                       "RESOURCE_EXHAUSTED",
                                       "DEADLINE_EXCEEDED",
                                       "UNAVAILABLE",
                                       "ABORTED",
                                       "CANCELLED",
                                       "DEVICE_FAILED",
                                       "DATA_LOSS",
                                       "INTERNAL"};
static_assert(std::size(kNames) == static_cast<size_t>(StatusCode::kInternal) + 1);
}  // namespace

std::string_view StatusCodeName(StatusCode code) {
  return kNames[static_cast<size_t>(code)];
}

StatusCode StatusCodeFromName(std::string_view name) {
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (kNames[i] == name) return static_cast<StatusCode>(i);
  }
  return StatusCode::kInternal;
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  return std::string(StatusCodeName(code_)) + ": " + message_;
}

Status Status::WithContext(std::string_view context) const {
  if (ok()) return *this;
  return Status(code_, std::string(context) + ": " + message_);
}

Status InvalidArgument(std::string m) {
  return {StatusCode::kInvalidArgument, std::move(m)};
}
Status NotFound(std::string m) {
  return {StatusCode::kNotFound, std::move(m)};
}
Status AlreadyExists(std::string m) {
  return {StatusCode::kAlreadyExists, std::move(m)};
}
Status FailedPrecondition(std::string m) {
  return {StatusCode::kFailedPrecondition, std::move(m)};
}
Status PermissionDenied(std::string m) {
  return {StatusCode::kPermissionDenied, std::move(m)};
}
Status ResourceExhausted(std::string m) {
  return {StatusCode::kResourceExhausted, std::move(m)};
}
Status DeadlineExceeded(std::string m) {
  return {StatusCode::kDeadlineExceeded, std::move(m)};
}
Status Unavailable(std::string m) {
  return {StatusCode::kUnavailable, std::move(m)};
}
Status Aborted(std::string m) {
  return {StatusCode::kAborted, std::move(m)};
}
Status Cancelled(std::string m) {
  return {StatusCode::kCancelled, std::move(m)};
}
Status DeviceFailed(std::string m) {
  return {StatusCode::kDeviceFailed, std::move(m)};
}
Status DataLoss(std::string m) {
  return {StatusCode::kDataLoss, std::move(m)};
}
Status Internal(std::string m) {
  return {StatusCode::kInternal, std::move(m)};
}

Status ErrnoStatus(int error_number, std::string_view what) {
  StatusCode code = StatusCode::kInternal;
  switch (error_number) {
    case ENOENT:
      code = StatusCode::kNotFound;
      break;
    case EEXIST:
      code = StatusCode::kAlreadyExists;
      break;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      code = StatusCode::kResourceExhausted;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = StatusCode::kPermissionDenied;
      break;
    case ETIMEDOUT:
      code = StatusCode::kDeadlineExceeded;
      break;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
      code = StatusCode::kUnavailable;
      break;
    case EADDRINUSE:
      code = StatusCode::kFailedPrecondition;
      break;
    case EINVAL:
    case ENOTDIR:
    case EISDIR:
      code = StatusCode::kInvalidArgument;
      break;
    default:
      break;
  }
  return Status(code, std::string(what) + ": " + std::strerror(error_number));
}

namespace internal {
void DieOnBadResult(const Status& status) {
  std::fprintf(stderr, "lepton: value() of a failed Result: %s\n", status.ToString().c_str());
  std::abort();
}
}  // namespace internal

}  // namespace lepton
