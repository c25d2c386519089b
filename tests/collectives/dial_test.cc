#include "collectives/transport/dial.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include "collectives/transport/socket.h"

namespace lepton::collectives {
namespace {

using std::chrono::seconds;

// While it lives this process can open no further file.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const UniqueFd lowest(fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0));
    rlimit none = before_;
    none.rlim_cur = static_cast<rlim_t>(lowest.get());
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

// The coordinator would take the peer out of the gang.
TEST(Dial, WithoutADescriptorItIsNotThePeerThatIsUnreachable) {
  Result<Listener> listener = ListenOn("127.0.0.1");
  ASSERT_TRUE(listener.ok()) << listener.status().ToString();
  const NoDescriptors none;
  Dial dial = Dial::Probe({1, listener->host, listener->port}, seconds(30), 3);
  EXPECT_EQ(dial.Advance(), Dial::State::kFailed);
  EXPECT_EQ(dial.status().code(), StatusCode::kResourceExhausted) << dial.status().ToString();
  EXPECT_FALSE(dial.unreachable());
}

TEST(Dial, AProbeOfAListenerSucceeds) {
  Result<Listener> listener = ListenOn("127.0.0.1");
  ASSERT_TRUE(listener.ok()) << listener.status().ToString();
  Dial dial = Dial::Probe({1, listener->host, listener->port}, seconds(30), 3);
  const Deadline deadline = Deadline::In(seconds(30));
  while (dial.Advance() == Dial::State::kConnecting && !deadline.Expired()) {
  }
  EXPECT_EQ(dial.state(), Dial::State::kDone) << dial.status().ToString();
}

}  // namespace
}  // namespace lepton::collectives
