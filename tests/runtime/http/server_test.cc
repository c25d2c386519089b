// What a well-behaved client sees.
#include "runtime/http/server.h"

#include <atomic>
#include <condition_variable>
#include <thread>

#include "tests/runtime/http/http_test_support.h"

namespace lepton::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(HttpServer, AnswersOneThousandRequestsOnOneConnection) {
  std::mutex mutex;
  std::map<std::string, int> peers;
  auto server = StartServer([&](Request request, ResponderPtr responder) {
    {
      std::lock_guard lock(mutex);
      ++peers[request.peer];
    }
    EchoHandler(std::move(request), responder);
  });
  Client client = ClientFor(*server);
  for (int i = 0; i < 1000; ++i) {
    const std::string body = "body" + std::to_string(i);
    auto response =
        client.Call(Post("/echo?i=" + std::to_string(i), body), Deadline::In(seconds(5)));
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    ASSERT_EQ(response->body, "POST /echo?i=" + std::to_string(i) + " " + body);
  }
  EXPECT_EQ(peers.size(), 1u) << "the connection was not kept";
}

TEST(HttpServer, AnswersSixtyFourClientsAtOnce) {
  auto server = StartServer(EchoHandler);
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < 64; ++c) {
    threads.emplace_back([&, c] {
      Client client = ClientFor(*server);
      for (int i = 0; i < 20; ++i) {
        const std::string target = "/" + std::to_string(c) + "/" + std::to_string(i);
        auto response = client.Call(Get(target), Deadline::In(seconds(20)));
        if (response.ok() && response->body == "GET " + target + " ") ++right;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 64 * 20);
}

TEST(HttpServer, AStreamWhoseClientLeftAsItStartedIsNotOpen) {
  std::mutex mutex;
  std::condition_variable changed;
  std::shared_ptr<Stream> stream;
  auto server = StartServer([&](Request, const ResponderPtr& responder) {
    std::this_thread::sleep_for(milliseconds(50));  // the client's end waits for this thread
    std::lock_guard lock(mutex);
    stream = responder->StartStream(200, {});
    changed.notify_all();
  });
  RawSocket socket(server->port());
  socket.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  socket.Close();
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, seconds(5), [&] { return stream != nullptr; }));
  const Deadline deadline = Deadline::In(seconds(2));
  while (stream->open() && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_FALSE(stream->open());
}

// `size` bytes that are made as they are asked for.
class CountedSource final : public BodySource {
 public:
  CountedSource(uint64_t size, uint64_t fails_at) : size_(size), fails_at_(fails_at) {}
  uint64_t size() const override { return size_; }
  Result<std::string> Next(size_t max_bytes) override {
    if (read >= fails_at_) return DataLoss("the disk is gone");
    const uint64_t bytes = std::min<uint64_t>(max_bytes, size_ - read);
    std::string piece(bytes, 'x');
    piece.front() = static_cast<char>('a' + read % 26);
    read += bytes;
    return piece;
  }
  std::atomic<uint64_t> read{0};

 private:
  const uint64_t size_, fails_at_;
};

TEST(HttpServer, ABodyFromASourceIsReadAsItIsSent) {
  constexpr uint64_t kSize = uint64_t{64} << 20;
  const auto source = std::make_shared<CountedSource>(kSize, kSize);
  auto server = StartServer([&](Request request, const ResponderPtr& responder) {
    Response response;
    if (request.path == "/large") {
      response.source = source;
    } else {
      response.body = "small";
    }
    responder->Send(std::move(response));
  });
  Client client = ClientFor(*server);
  uint64_t got = 0, ahead = 0;
  const Status status =
      client.CallStreaming(Get("/large"), Deadline::In(seconds(60)), [&](std::string_view bytes) {
        got += bytes.size();
        ahead = std::max(ahead, source->read - got);
        // A client that stands still is not read for.
        if (got == bytes.size()) std::this_thread::sleep_for(milliseconds(200));
        return true;
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(got, kSize);
  EXPECT_LT(ahead, kSize / 4) << "it was read into memory";
  auto next = client.Call(Get("/small"), Deadline::In(seconds(5)));
  ASSERT_TRUE(next.ok()) << next.status().ToString();
  EXPECT_EQ(next->body, "small");
}

TEST(HttpServer, ASourceThatFailsBreaksTheAnswerOff) {
  constexpr uint64_t kSize = uint64_t{4} << 20;
  auto server = StartServer([&](Request request, const ResponderPtr& responder) {
    Response response;
    response.source =
        std::make_shared<CountedSource>(kSize, request.path == "/half" ? kSize / 2 : 0);
    responder->Send(std::move(response));
  });
  for (const char* path : {"/half", "/none"}) {
    Client client = ClientFor(*server);
    uint64_t got = 0;
    const Status status =
        client.CallStreaming(Get(path), Deadline::In(seconds(20)), [&](std::string_view bytes) {
          got += bytes.size();
          return true;
        });
    EXPECT_EQ(status.code(), StatusCode::kUnavailable) << status.ToString();
    EXPECT_LT(got, kSize);
  }
}

TEST(HttpServer, AHeadRequestSaysTheSizeOfASource) {
  const auto source = std::make_shared<CountedSource>(12345678, 12345678);
  auto server = StartServer([&](Request, const ResponderPtr& responder) {
    Response response;
    response.source = source;
    responder->Send(std::move(response));
  });
  RawSocket socket(server->port());
  socket.Send("HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_NE(socket.ReadAll().find("Content-Length: 12345678\r\n"), std::string::npos);
  EXPECT_EQ(source->read, 0u);
}

TEST(HttpServer, DecodesTargetsAndHeaders) {
  auto server = StartServer([](Request request, ResponderPtr responder) {
    responder->Send(Response::Text(200, request.path + "|" + request.query["a"] + "|" +
                                            request.query["b c"] + "|" + request.Header("x-NAME")));
  });
  RawSocket socket(server->port());
  socket.Send(
      "GET /p%20q/r?a=1%2B1&b+c=%C3%A9 HTTP/1.1\r\nHost: x\r\nX-Name: v\r\nConnection: "
      "close\r\n\r\n");
  const std::string answer = socket.ReadAll();
  EXPECT_TRUE(answer.ends_with("\r\n\r\n/p q/r|1+1|\xC3\xA9|v")) << answer;
  EXPECT_NE(answer.find("Connection: close"), std::string::npos);
}

TEST(HttpServer, AnswersPipelinedRequestsInOrder) {
  auto server = StartServer([](Request request, ResponderPtr responder) {
    // Later requests would be answered first if they ran at the same time.
    const int delay_ms = request.path == "/0" ? 50 : 0;
    std::thread([=] {
      std::this_thread::sleep_for(milliseconds(delay_ms));
      responder->Send(Response::Text(200, "[" + request.path + "]"));
    }).detach();
  });
  RawSocket socket(server->port());
  std::string requests;
  for (int i = 0; i < 20; ++i) {
    requests += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: x\r\n" +
                (i == 19 ? "Connection: close\r\n\r\n" : "\r\n");
  }
  socket.Send(requests);
  const std::string answers = socket.ReadAll();
  size_t at = 0;
  for (int i = 0; i < 20; ++i) {
    const size_t found = answers.find("[/" + std::to_string(i) + "]", at);
    ASSERT_NE(found, std::string::npos) << i << ": " << answers;
    at = found;
  }
}

TEST(HttpServer, TakesChunkedBodiesByteByByte) {
  auto server = StartServer(EchoHandler);
  RawSocket socket(server->port());
  for (const char c :
       std::string_view("POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
                        "Connection: close\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")) {
    ASSERT_TRUE(socket.Send({&c, 1}));
  }
  EXPECT_TRUE(socket.ReadAll().ends_with("POST /c hello world"));
}

TEST(HttpServer, SaysContinueBeforeABodyThatIsExpected) {
  auto server = StartServer(EchoHandler);
  RawSocket socket(server->port());
  socket.Send(
      "POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: "
      "close\r\n\r\n");
  EXPECT_EQ(socket.ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  socket.Send("abc");
  EXPECT_TRUE(socket.ReadAll().ends_with("POST /e abc"));
}

TEST(HttpServer, HeadHasTheLengthButNoBody) {
  auto server = StartServer(EchoHandler);
  RawSocket socket(server->port());
  socket.Send("HEAD /h HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string answer = socket.ReadAll();
  EXPECT_NE(answer.find("Content-Length: 8\r\n"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\n"));
  Client client = ClientFor(*server);
  Request head = Get("/h");
  head.method = "HEAD";
  for (int i = 0; i < 2; ++i) {
    auto response = client.Call(head, Deadline::In(seconds(5)));
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    EXPECT_EQ(response->body, "");
  }
}

TEST(HttpServer, Http10ClosesUnlessAskedToKeep) {
  auto server = StartServer(EchoHandler);
  RawSocket plain(server->port());
  plain.Send("GET /a HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(plain.ReadAll().ends_with("GET /a "));
  RawSocket kept(server->port());
  kept.Send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_NE(kept.ReadUntil("GET /a ").find("Connection: keep-alive"), std::string::npos);
  kept.Send("GET /b HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(kept.ReadAll().ends_with("GET /b "));
}

TEST(HttpServer, CarriesLargeBodiesBothWays) {
  auto server = StartServer([](Request request, ResponderPtr responder) {
    responder->Send(Response::Text(200, std::move(request.body), "application/octet-stream"));
  });
  std::string body(size_t{20} << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 997) body[i] = static_cast<char>(i);
  Client client = ClientFor(*server);
  auto response = client.Call(Post("/big", body), Deadline::In(seconds(20)));
  ASSERT_TRUE(response.ok()) << response.status().ToString();
  EXPECT_TRUE(response->body == body);
}

TEST(HttpServer, AHandlerThatForgetsOrThrowsGives500) {
  auto server = StartServer([](Request request, ResponderPtr) {
    if (request.path == "/throw") throw std::runtime_error("boom");
  });
  Client client = ClientFor(*server);
  for (const char* target : {"/forget", "/throw"}) {
    auto response = client.Call(Get(target), Deadline::In(seconds(5)));
    ASSERT_TRUE(response.ok()) << response.status().ToString();
    EXPECT_EQ(response->status, 500);
  }
}

TEST(HttpServer, OnlyTheFirstAnswerCounts) {
  auto server = StartServer([](Request, ResponderPtr responder) {
    responder->Send(Response::Text(200, "first"));
    responder->Send(Response::Text(200, "second"));
    EXPECT_FALSE(responder->StartStream(200, {})->Write("third"));
  });
  Client client = ClientFor(*server);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client.Call(Get("/"), Deadline::In(seconds(5))).value().body, "first");
  }
}

TEST(HttpServer, DropsResponseHeadersThatWouldSplitTheAnswer) {
  auto server = StartServer([](Request, ResponderPtr responder) {
    Response response = Response::Text(200, "ok");
    response.headers.emplace("X-Bad", "a\r\nInjected: yes");
    response.headers.emplace("X-Good", "b");
    responder->Send(std::move(response));
  });
  Client client = ClientFor(*server);
  auto response = client.Call(Get("/"), Deadline::In(seconds(5)));
  ASSERT_TRUE(response.ok());
  EXPECT_FALSE(response->headers.contains("Injected"));
  EXPECT_TRUE(response->headers.contains("x-good"));
}

TEST(HttpServer, TellsTheHandlerWhenTheClientLeaves) {
  std::mutex mutex;
  ResponderPtr held;
  std::atomic<int> cancelled{0};
  auto server = StartServer([&](Request, ResponderPtr responder) {
    responder->OnCancel([&] { ++cancelled; });
    std::lock_guard lock(mutex);
    held = std::move(responder);
  });
  const auto wait = [&](auto condition) {
    const Deadline deadline = Deadline::In(seconds(5));
    while (!condition() && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(1));
    return condition();
  };
  for (const bool reset : {false, true}) {
    cancelled = 0;
    RawSocket socket(server->port());
    socket.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_TRUE(wait([&] {
      std::lock_guard lock(mutex);
      return held != nullptr;
    }));
    EXPECT_FALSE(held->cancelled());
    reset ? socket.Reset() : socket.Close();
    ASSERT_TRUE(wait([&] { return cancelled == 1; }));
    EXPECT_TRUE(held->cancelled());
    int late = 0;
    held->OnCancel([&] { ++late; });
    EXPECT_EQ(late, 1) << "a callback set after the disconnect must run at once";
    held->Send(Response::Text(200, "to nobody"));
    std::lock_guard lock(mutex);
    held.reset();
  }
}

TEST(HttpServer, NoCancelAfterAnAnswer) {
  std::atomic<int> cancelled{0};
  auto server = StartServer([&](Request, ResponderPtr responder) {
    responder->OnCancel([&] { ++cancelled; });
    responder->Send(Response::Text(200, "done"));
  });
  { ASSERT_TRUE(ClientFor(*server).Call(Get("/"), Deadline::In(seconds(5))).ok()); }
  server->Stop(seconds(1));
  EXPECT_EQ(cancelled, 0);
}

TEST(HttpServer, RefusesAPortInUseAndBadAddresses) {
  auto server = StartServer(EchoHandler);
  ServerOptions options;
  options.port = server->port();
  EXPECT_EQ(Server::Start(options, EchoHandler).status().code(), StatusCode::kFailedPrecondition);
  options.address = "not an address";
  EXPECT_EQ(Server::Start(options, EchoHandler).status().code(), StatusCode::kInvalidArgument);
}

TEST(HttpServer, StopLetsAnswersInFlightFinish) {
  std::atomic<bool> entered{false};
  auto server = StartServer([&](Request, ResponderPtr responder) {
    entered = true;
    std::thread([responder] {
      std::this_thread::sleep_for(milliseconds(200));
      responder->Send(Response::Text(200, "late but whole"));
    }).detach();
  });
  std::string body;
  std::thread caller([&] {
    auto response = ClientFor(*server).Call(Get("/"), Deadline::In(seconds(5)));
    if (response.ok()) body = response->body;
  });
  while (!entered) std::this_thread::sleep_for(milliseconds(1));
  RawSocket idle(server->port());
  const auto start = std::chrono::steady_clock::now();
  server->Stop(seconds(10));
  EXPECT_LT(std::chrono::steady_clock::now() - start, seconds(4)) << "idle connections hold it up";
  caller.join();
  EXPECT_EQ(body, "late but whole");
}

TEST(HttpServer, StopUnderLoadLosesNoAnswerThatItBegan) {
  std::atomic<int> handled{0}, answered{0}, broken{0};
  auto server = StartServer([&](Request, ResponderPtr responder) {
    ++handled;
    responder->Send(Response::Text(200, std::string(10000, 'a')));
  });
  std::atomic<bool> go_on{true};
  std::vector<std::thread> threads;
  for (int c = 0; c < 8; ++c) {
    threads.emplace_back([&] {
      Client client = ClientFor(*server);
      while (go_on) {
        auto response = client.Call(Get("/"), Deadline::In(seconds(5)));
        if (!response.ok()) {
          if (response.status().code() != StatusCode::kUnavailable) ++broken;
          return;
        }
        if (response->body.size() == 10000) ++answered;
      }
    });
  }
  while (handled < 500) std::this_thread::sleep_for(milliseconds(1));
  server->Stop(seconds(5));
  go_on = false;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(broken, 0);
  EXPECT_EQ(handled, answered);
}

TEST(HttpServer, AnswersAfterStopAndAfterDestructionDoNothing) {
  ResponderPtr held;
  std::shared_ptr<Stream> stream;
  std::atomic<int> entered{0};
  auto server = StartServer([&](Request request, ResponderPtr responder) {
    if (request.path == "/stream") {
      stream = responder->StartStream(200, {});
    } else {
      held = responder;
    }
    ++entered;
  });
  RawSocket one(server->port()), two(server->port());
  one.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  two.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  while (entered < 2) std::this_thread::sleep_for(milliseconds(1));
  server->Stop(milliseconds(10));
  server.reset();
  EXPECT_TRUE(held->cancelled());
  EXPECT_FALSE(stream->open());
  held->Send(Response::Text(200, "late"));
  EXPECT_FALSE(stream->Write("late"));
}

TEST(HttpServer, LeaksNoDescriptors) {
  { auto warm_up = StartServer(EchoHandler); }
  const size_t before = OpenDescriptors();
  for (int round = 0; round < 3; ++round) {
    auto server = StartServer(EchoHandler);
    for (int i = 0; i < 50; ++i) {
      ASSERT_TRUE(ClientFor(*server).Call(Get("/"), Deadline::In(seconds(5))).ok());
      RawSocket(server->port()).Send("GET /");
    }
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

}  // namespace
}  // namespace lepton::http
