// The frames of a group's control connections once it is ready: FORMAT.md, "Control connections".
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lepton::collectives {

enum class ControlFrame : uint32_t { kGoodbye = 1, kAbort = 2, kPulse = 3, kRates = 4 };

struct ControlFrameHeader {
  ControlFrame type;
  uint32_t bytes;
};
inline constexpr size_t kMaxControlPayload = 2048;

// The bytes of one; a payload that is too long is cut.
inline std::string EncodeControlFrame(ControlFrame type, std::string_view payload) {
  const ControlFrameHeader header{
      type, static_cast<uint32_t>(std::min(payload.size(), kMaxControlPayload))};
  std::string frame(reinterpret_cast<const char*>(&header), sizeof(header));
  return frame.append(payload.substr(0, header.bytes));
}

}  // namespace lepton::collectives
