#include "tests/collectives/gang.h"

#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include "runtime/base/file.h"

namespace lepton::collectives {
namespace {

constexpr Duration kJoinTimeout = std::chrono::seconds(30);

const Backend& BackendOf(const GangOptions& options, int rank) {
  return options.backends.empty() ? *options.backend : *options.backends[rank];
}

GroupSpec SpecFor(const GangOptions& options, int rank, std::vector<std::string> members) {
  return {rank, options.size, options.epoch, options.token, std::move(members), options.leaves};
}

std::string RunRank(const GangOptions& options, int rank, std::unique_ptr<Endpoint> endpoint,
                    std::vector<std::string> members, const RankBody& body,
                    const std::function<void()>& joined) {
  auto communicator = BackendOf(options, rank)
                          .Join(std::move(endpoint), SpecFor(options, rank, std::move(members)),
                                options.communicator, Deadline::In(kJoinTimeout));
  joined();
  if (!communicator.ok()) return "join: " + communicator.status().ToString();
  return body(**communicator);
}

// --- threads ---

std::vector<std::string> RunThreads(const GangOptions& options, const RankBody& body) {
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  std::vector<std::string> members;
  for (int rank = 0; rank < options.size; ++rank) {
    auto endpoint = BackendOf(options, rank).Listen("127.0.0.1");
    if (!endpoint.ok()) return {"listen: " + endpoint.status().ToString()};
    members.push_back((*endpoint)->address());
    endpoints.push_back(std::move(*endpoint));
  }
  std::vector<std::string> results(static_cast<size_t>(options.size));
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable changed;
  int joined = 0;
  for (int rank = 0; rank < options.size; ++rank) {
    threads.emplace_back([&, rank] {
      results[rank] = RunRank(options, rank, std::move(endpoints[rank]), members, body, [&] {
        std::lock_guard lock(mutex);
        ++joined;
        changed.notify_all();
      });
    });
  }
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return joined == options.size; });
  }
  if (options.when_joined) options.when_joined({});
  for (auto& thread : threads) thread.join();
  return results;
}

// --- processes ---

void WriteBytes(int fd, const std::string& bytes) {
  uint32_t size = static_cast<uint32_t>(bytes.size());
  std::string frame(reinterpret_cast<const char*>(&size), sizeof(size));
  (void)WriteAll(fd, frame + bytes);
}

bool ReadExactly(int fd, char* to, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t got = read(fd, to + done, size - done);
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

bool ReadBytes(int fd, std::string* bytes) {
  uint32_t size = 0;
  if (!ReadExactly(fd, reinterpret_cast<char*>(&size), sizeof(size))) return false;
  bytes->resize(size);
  return ReadExactly(fd, bytes->data(), size);
}

// Address up, members down, "joined" up, result up.
[[noreturn]] void ChildMain(const GangOptions& options, int rank, int fd, const RankBody& body) {
  if (options.at_start) options.at_start(rank);
  std::string result;
  auto endpoint = BackendOf(options, rank).Listen("127.0.0.1");
  WriteBytes(fd, endpoint.ok() ? (*endpoint)->address() : "");
  std::vector<std::string> members(static_cast<size_t>(options.size));
  for (std::string& member : members) ReadBytes(fd, &member);
  if (endpoint.ok()) {
    result = RunRank(options, rank, std::move(*endpoint), std::move(members), body,
                     [fd] { WriteBytes(fd, "joined"); });
  } else {
    WriteBytes(fd, "not joined");
    result = "listen: " + endpoint.status().ToString();
  }
  WriteBytes(fd, result);
  std::fflush(nullptr);
  _exit(0);
}

std::string Reap(pid_t pid, int fd) {
  std::string result;
  bool answered = ReadBytes(fd, &result);
  int status = 0;
  waitpid(pid, &status, 0);
  if (answered) return result;
  if (WIFSIGNALED(status)) return "killed by signal " + std::to_string(WTERMSIG(status));
  return "exited with " + std::to_string(WEXITSTATUS(status)) + " and no result";
}

std::vector<std::string> RunProcesses(const GangOptions& options, const RankBody& body) {
  std::fflush(nullptr);
  std::vector<pid_t> pids;
  std::vector<UniqueFd> pipes;
  for (int rank = 0; rank < options.size; ++rank) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) std::abort();
    pid_t pid = fork();
    if (pid < 0) std::abort();
    if (pid == 0) {
      pipes.clear();
      close(pair[0]);
      ChildMain(options, rank, pair[1], body);
    }
    close(pair[1]);
    pids.push_back(pid);
    pipes.emplace_back(pair[0]);
  }
  std::vector<std::string> members(pipes.size());
  for (size_t rank = 0; rank < pipes.size(); ++rank) ReadBytes(pipes[rank].get(), &members[rank]);
  for (auto& pipe : pipes) {
    for (const auto& member : members) WriteBytes(pipe.get(), member);
  }
  std::string joined;
  for (auto& pipe : pipes) ReadBytes(pipe.get(), &joined);
  if (options.when_joined) options.when_joined(pids);
  std::vector<std::string> results;
  for (size_t rank = 0; rank < pipes.size(); ++rank) {
    results.push_back(Reap(pids[rank], pipes[rank].get()));
  }
  return results;
}

}  // namespace

std::vector<std::string> RunGang(const GangOptions& options, const RankBody& body) {
  return options.ranks_as == RanksAs::kThreads ? RunThreads(options, body)
                                               : RunProcesses(options, body);
}

}  // namespace lepton::collectives
