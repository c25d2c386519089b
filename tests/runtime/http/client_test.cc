// Both clients, against our server and against scripted misbehaviour.
#include "runtime/http/client.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <atomic>
#include <condition_variable>
#include <thread>

#include "tests/runtime/http/http_test_support.h"

namespace lepton::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Accepts one connection after the other and runs a script on each: bytes to send after the first
// bytes came, then close.
class ScriptedServer {
 public:
  explicit ScriptedServer(std::vector<std::string> answers) : answers_(std::move(answers)) {
    listener_.Reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_.get(), 16), 0);
    getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~ScriptedServer() {
    shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  uint16_t port() const { return port_; }
  int connections() const { return connections_; }

 private:
  void Run() {
    for (const std::string& answer : answers_) {
      UniqueFd peer(accept(listener_.get(), nullptr, nullptr));
      if (!peer.valid()) return;
      ++connections_;
      char buffer[4096];
      if (recv(peer.get(), buffer, sizeof buffer, 0) <= 0) continue;
      send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }
  std::vector<std::string> answers_;
  UniqueFd listener_;
  uint16_t port_ = 0;
  std::atomic<int> connections_{0};
  std::thread thread_;
};

Client ClientForPort(uint16_t port) {
  Url url;
  url.host = "127.0.0.1";
  url.port = port;
  return Client(url, {});
}

TEST(HttpUrl, Parses) {
  const Url plain = ParseUrl("http://127.0.0.1:8080").value();
  EXPECT_EQ(plain.host, "127.0.0.1");
  EXPECT_EQ(plain.port, 8080);
  EXPECT_FALSE(plain.tls);
  EXPECT_EQ(plain.path_prefix, "");
  const Url tls = ParseUrl("https://example.com/lepton/").value();
  EXPECT_EQ(tls.port, 443);
  EXPECT_TRUE(tls.tls);
  EXPECT_EQ(tls.path_prefix, "/lepton");
  EXPECT_EQ(ParseUrl("http://[::1]:9").value().host, "::1");
  EXPECT_EQ(ParseUrl("localhost:81").value().port, 81);
  for (const char* bad : {"", "http://", "ftp://x", "http://x:0", "http://x:99999", "http://x:1a",
                          "http://u:p@x", "http://[::1", "http://x/a?b", "http://a b"}) {
    EXPECT_EQ(ParseUrl(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST(HttpClient, NamesAServerThatIsNotThere) {
  uint16_t port = 0;
  { port = StartServer(EchoHandler)->port(); }
  auto response = ClientForPort(port).Call(Get("/"), Deadline::In(seconds(5)));
  EXPECT_EQ(response.status().code(), StatusCode::kUnavailable);
  EXPECT_NE(response.status().message().find("cannot connect"), std::string::npos);
}

TEST(HttpClient, KeepsItsDeadline) {
  auto server = StartServer([](Request, ResponderPtr responder) {
    responder->OnCancel([responder] {});  // held until the client leaves
  });
  Client client = ClientFor(*server);
  const auto begin = std::chrono::steady_clock::now();
  auto response = client.Call(Get("/"), Deadline::In(milliseconds(100)));
  EXPECT_EQ(response.status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(2));
}

TEST(HttpClient, IsUsableAfterADeadline) {
  std::atomic<int> calls{0};
  auto server = StartServer([&](Request request, ResponderPtr responder) {
    if (++calls == 1) return responder->OnCancel([responder] {});
    EchoHandler(std::move(request), responder);
  });
  Client client = ClientFor(*server);
  EXPECT_FALSE(client.Call(Get("/"), Deadline::In(milliseconds(50))).ok());
  EXPECT_EQ(client.Call(Get("/x"), Deadline::In(seconds(5))).value().body, "GET /x ");
}

TEST(HttpClient, AnswersThatBreakAreErrors) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  for (const std::string& answer :
       {std::string(), head, head + "Content-Length: 10\r\n\r\nabc",
        head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", std::string("GARBAGE\r\n\r\n"),
        head + "Content-Length: x\r\n\r\n"}) {
    ScriptedServer server({answer});
    auto response = ClientForPort(server.port()).Call(Get("/"), Deadline::In(seconds(5)));
    EXPECT_EQ(response.status().code(), StatusCode::kUnavailable) << answer;
  }
}

TEST(HttpClient, ReadsAnswersThatEndWithTheConnection) {
  ScriptedServer server({"HTTP/1.1 200 OK\r\n\r\nuntil the end"});
  auto response = ClientForPort(server.port()).Call(Get("/"), Deadline::In(seconds(5)));
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_EQ(response->body, "until the end");
}

TEST(HttpClient, SkipsInterimAnswers) {
  ScriptedServer server(
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"});
  auto response = ClientForPort(server.port()).Call(Post("/", "x"), Deadline::In(seconds(5)));
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_EQ(response->status, 204);
}

TEST(HttpClient, RetriesAStaleConnectionOnceButNeverAfterAByte) {
  const std::string ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  {
    // The first connection is closed after its answer, although it was to be kept.
    ScriptedServer server({ok, ok});
    Client client = ClientForPort(server.port());
    ASSERT_TRUE(client.Call(Get("/"), Deadline::In(seconds(5))).ok());
    std::this_thread::sleep_for(milliseconds(20));
    EXPECT_TRUE(client.Call(Get("/"), Deadline::In(seconds(5))).ok());
    EXPECT_EQ(server.connections(), 2);
  }
  {
    // A fresh connection that breaks is no stale one.
    ScriptedServer server({"", ok});
    Client client = ClientForPort(server.port());
    EXPECT_FALSE(client.Call(Get("/"), Deadline::In(seconds(5))).ok());
    EXPECT_EQ(server.connections(), 1);
  }
}

TEST(HttpClient, SendsTheBearerTokenAndPrefix) {
  auto server = StartServer([](Request request, ResponderPtr responder) {
    responder->Send(Response::Text(200, request.Header("authorization") + " " + request.path));
  });
  Url url;
  url.host = "127.0.0.1";
  url.port = server->port();
  url.path_prefix = "/base";
  Client client(url, {.bearer_token = "secret"});
  EXPECT_EQ(client.Call(Get("/x"), Deadline::In(seconds(5))).value().body, "Bearer secret /base/x");
  EXPECT_EQ(client.Call(Get("/a b"), Deadline::In(seconds(5))).status().code(),
            StatusCode::kInvalidArgument);
}

// ---- streams ------------------------------------------------------------------------------

TEST(HttpStreaming, EventsArriveOneByOneAndEnd) {
  auto server = StartServer([](Request, ResponderPtr responder) {
    auto stream = responder->StartStream(200, {{"Content-Type", "text/event-stream"}});
    std::thread([stream] {
      for (int i = 0; i < 5; ++i) {
        stream->Write("id: " + std::to_string(i) + "\ndata: event " + std::to_string(i) + "\n\n");
        std::this_thread::sleep_for(milliseconds(10));
      }
      stream->Close();
    }).detach();
  });
  Client client = ClientFor(*server);
  for (int round = 0; round < 2; ++round) {  // the connection survives a stream
    SseParser parser;
    std::vector<std::string> seen;
    const Status status =
        client.CallStreaming(Get("/events"), Deadline::In(seconds(5)), [&](std::string_view bytes) {
          for (const auto& event : parser.Feed(bytes)) seen.push_back(event.id + "=" + event.data);
          return true;
        });
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(seen, (std::vector<std::string>{"0=event 0", "1=event 1", "2=event 2", "3=event 3",
                                              "4=event 4"}));
  }
}

TEST(HttpStreaming, TheReaderMayGiveUpAndTheWriterLearnsOfIt) {
  std::atomic<int> writers_done{0};
  auto server = StartServer([&](Request, ResponderPtr responder) {
    std::thread([&, stream = responder->StartStream(200, {})] {
      while (stream->Write("data: x\n\n")) std::this_thread::sleep_for(milliseconds(1));
      ++writers_done;
    }).detach();
  });
  {
    Client client = ClientFor(*server);
    int pieces = 0;
    EXPECT_EQ(client
                  .CallStreaming(Get("/"), Deadline::In(seconds(5)),
                                 [&](std::string_view) { return ++pieces < 3; })
                  .code(),
              StatusCode::kCancelled);
    EXPECT_EQ(client
                  .CallStreaming(Get("/"), Deadline::In(milliseconds(80)),
                                 [](std::string_view) { return true; })
                  .code(),
              StatusCode::kDeadlineExceeded);
  }
  const Deadline deadline = Deadline::In(seconds(5));
  while (writers_done < 2 && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(writers_done, 2);
}

TEST(HttpStreaming, SilenceEndsACallButNotOneThatGoesOn) {
  std::atomic<bool> done{false};
  std::jthread writer;
  auto server = StartServer([&](Request, ResponderPtr responder) {
    writer = std::jthread([&, stream = responder->StartStream(200, {})] {
      for (int i = 0; i < 6; ++i) {
        stream->Write(":\n\n");
        std::this_thread::sleep_for(milliseconds(100));
      }
      while (!done) std::this_thread::sleep_for(milliseconds(1));  // the stream stays open
    });
  });
  int pieces = 0;
  Client client = ClientFor(*server);
  const Status status = client.CallStreaming(
      Get("/"), Deadline::In(seconds(30)), [&](std::string_view) { return ++pieces > 0; },
      milliseconds(400));
  done = true;
  EXPECT_EQ(status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_EQ(pieces, 6) << "which took longer than the silence that ends it";
}

TEST(HttpStreaming, WhatCameWhileTheClientStoodStillIsNotLate) {
  auto server = StartServer([&](Request, ResponderPtr responder) {
    auto stream = responder->StartStream(200, {});
    stream->Write("one");
    std::thread([stream] {
      std::this_thread::sleep_for(milliseconds(300));
      stream->Write("two");
      stream->Close();
    }).detach();
  });
  std::string got;
  const Status status = ClientFor(*server).CallStreaming(
      Get("/"), Deadline::In(seconds(30)),
      [&](std::string_view bytes) {
        if (got.empty()) std::this_thread::sleep_for(milliseconds(1600));
        got += bytes;
        return true;
      },
      milliseconds(100));
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(got, "onetwo");
}

TEST(HttpStreaming, AnErrorAnswerIsItsStatus) {
  auto server = StartServer([](Request, ResponderPtr responder) {
    responder->Send(Problem(NotFound("job j9: no such job")));
  });
  const Status status = ClientFor(*server).CallStreaming(Get("/"), Deadline::In(seconds(5)),
                                                         [](std::string_view) { return true; });
  EXPECT_EQ(status, NotFound("job j9: no such job"));
}

TEST(HttpStreaming, AStreamOfAnHttp10ClientIsNotChunked) {
  auto server = StartServer([](Request, ResponderPtr responder) {
    auto stream = responder->StartStream(200, {});
    stream->Write("one");
    stream->Write("two");
    stream->Close();
  });
  RawSocket socket(server->port());
  socket.Send("GET / HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(socket.ReadAll().ends_with("\r\n\r\nonetwo"));
}

TEST(SseParser, TakesAnyCuts) {
  const std::string bytes =
      ": comment\n\nid: 1\r\nevent: log\r\ndata: a\r\ndata:b\r\n\r\ndata\n\nid: 2\ndata: {\"x\": "
      "1}\n\n";
  for (size_t cut = 1; cut < bytes.size(); ++cut) {
    SseParser parser;
    std::vector<SseParser::Event> events;
    for (size_t at = 0; at < bytes.size(); at += cut) {
      for (auto& event : parser.Feed(std::string_view(bytes).substr(at, cut))) {
        events.push_back(std::move(event));
      }
    }
    ASSERT_EQ(events.size(), 3u) << cut;
    EXPECT_EQ(events[0].id, "1");
    EXPECT_EQ(events[0].event, "log");
    EXPECT_EQ(events[0].data, "a\nb");
    EXPECT_EQ(events[1].data, "");
    EXPECT_EQ(events[2].data, "{\"x\": 1}");
  }
}

// ---- the asynchronous client --------------------------------------------------------------

// Collects results of asynchronous calls.
class Results {
 public:
  AsyncClient::Done Slot() {
    return [this](Result<Response> result) {
      std::lock_guard lock(mutex_);
      results_.push_back(std::move(result));
      changed_.notify_all();
    };
  }
  const std::vector<Result<Response>>& Wait(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, seconds(20), [&] { return results_.size() >= count; }));
    return results_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Result<Response>> results_;
};

TEST(HttpClient, AStreamedBodyMayBeLargerThanMemory) {
  ScriptedServer server({"HTTP/1.1 200 OK\r\nContent-Length: 50000000000\r\n\r\nbegins"});
  std::string got;
  const Status status =
      ClientForPort(server.port())
          .CallStreaming(Get("/"), Deadline::In(seconds(5)), [&](std::string_view bytes) {
            got += bytes;
            return true;
          });
  EXPECT_EQ(got, "begins");
  EXPECT_EQ(status.code(), StatusCode::kUnavailable) << "it ends early";
}

TEST(AsyncHttpClient, RunsManyCallsOverFewConnections) {
  std::mutex mutex;
  std::map<std::string, int> peers;
  auto server = StartServer([&](Request request, ResponderPtr responder) {
    {
      std::lock_guard lock(mutex);
      ++peers[request.peer];
    }
    EchoHandler(std::move(request), responder);
  });
  auto client = AsyncClient::Make(2, 8);
  for (int round = 0; round < 20; ++round) {
    Results results;
    for (int i = 0; i < 8; ++i) {
      client->Call("127.0.0.1", server->port(), Get("/x"), seconds(5), results.Slot());
    }
    for (const auto& result : results.Wait(8)) {
      ASSERT_TRUE(result.ok()) << result.status().ToString();
      EXPECT_EQ(result->body, "GET /x ");
    }
  }
  EXPECT_LE(peers.size(), 16u) << "connections are not reused";
}

TEST(AsyncHttpClient, TimesOutAndCancels) {
  std::atomic<int> seen{0}, left{0};
  auto server = StartServer([&](Request, ResponderPtr responder) {
    ++seen;
    responder->OnCancel([&left, responder] { ++left; });
  });
  auto client = AsyncClient::Make();
  Results slow, cancelled;
  client->Call("127.0.0.1", server->port(), Get("/"), milliseconds(50), slow.Slot());
  EXPECT_EQ(slow.Wait(1)[0].status().code(), StatusCode::kDeadlineExceeded);
  // The server may have been too slow to see the first one.
  const int before = seen;
  auto cancel = client->Call("127.0.0.1", server->port(), Get("/"), seconds(20), cancelled.Slot());
  const Deadline deadline = Deadline::In(seconds(10));
  while (seen == before && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(1));
  cancel();
  EXPECT_EQ(cancelled.Wait(1)[0].status().code(), StatusCode::kCancelled);
  cancel();
  while (left < seen && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_GT(left, before) << "the second was not seen";
  EXPECT_EQ(left, seen) << "the server must see both clients leave";
  Results orphan;
  auto late = client->Call("127.0.0.1", server->port(), Get("/"), seconds(20), orphan.Slot());
  client.reset();
  EXPECT_EQ(orphan.Wait(1)[0].status().code(), StatusCode::kCancelled);
  late();
}

TEST(AsyncHttpClient, LetsConnectionsOfServersThatAreGoneGo) {
  auto client = AsyncClient::Make();
  size_t after_first = 0;
  for (int i = 0; i < 20; ++i) {
    auto server = StartServer(EchoHandler);  // on another port than the last one
    Results results;
    client->Call("127.0.0.1", server->port(), Get("/"), seconds(5), results.Slot());
    ASSERT_TRUE(results.Wait(1)[0].ok());
    server.reset();
    if (i == 0) after_first = OpenDescriptors();
  }
  EXPECT_EQ(OpenDescriptors(), after_first);
}

TEST(AsyncHttpClient, ReplacesAStaleConnection) {
  auto client = AsyncClient::Make();
  ServerOptions options;
  auto server = StartServer(EchoHandler, options);
  options.port = server->port();
  Results first, second;
  client->Call("127.0.0.1", options.port, Get("/1"), seconds(5), first.Slot());
  ASSERT_TRUE(first.Wait(1)[0].ok());
  server.reset();
  server = StartServer(EchoHandler, options);
  client->Call("127.0.0.1", options.port, Get("/2"), seconds(5), second.Slot());
  ASSERT_TRUE(second.Wait(1)[0].ok()) << second.Wait(1)[0].status().ToString();
  server.reset();
  Results third;
  client->Call("127.0.0.1", options.port, Get("/3"), seconds(5), third.Slot());
  EXPECT_EQ(third.Wait(1)[0].status().code(), StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lepton::http
