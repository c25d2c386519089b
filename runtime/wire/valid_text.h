// protobuf writes a string that is not UTF-8 and then refuses to read it back: a message that is
// kept, or that others must read, goes through this first. Threads: any, each with its own message.
#pragma once

#include <google/protobuf/message.h>

namespace lepton::wire {

// Every string in `message`, at any depth, has U+FFFD in place of what is not UTF-8; of a map's
// keys that become one, one stays. A message without such bytes is not touched.
void MakeTextValid(google::protobuf::Message& message);

}  // namespace lepton::wire
