// Every limit and every time-out of ServerOptions, against clients that break them.
#include <random>
#include <thread>

#include "tests/runtime/http/http_test_support.h"

namespace lepton::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::string StatusLine(const std::string& answer) {
  return answer.substr(0, answer.find("\r\n"));
}

TEST(HttpLimits, BodyOverTheLimitIs413) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  auto server = StartServer(EchoHandler, options);
  RawSocket announced(server->port());
  announced.Send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n");
  EXPECT_EQ(StatusLine(announced.ReadAll()), "HTTP/1.1 413 Content Too Large");
  RawSocket chunked(server->port());
  chunked.Send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3E9\r\n" +
               std::string(1001, 'x') + "\r\n0\r\n\r\n");
  EXPECT_EQ(StatusLine(chunked.ReadAll()), "HTTP/1.1 413 Content Too Large");
  Client client = ClientFor(*server);
  auto at_limit = client.Call(Post("/", std::string(1000, 'x')), Deadline::In(seconds(5)));
  EXPECT_EQ(at_limit.value().status, 200);
  // The answer reaches a client that sends on regardless.
  auto over = client.Call(Post("/", std::string(5'000'000, 'x')), Deadline::In(seconds(5)));
  ASSERT_TRUE(over.ok()) << over.status().ToString();
  EXPECT_EQ(over->status, 413);
  EXPECT_EQ(StatusFromResponse(*over).code(), StatusCode::kResourceExhausted);
}

TEST(HttpLimits, WhatIsRefusedByItsHeadIsAnsweredBeforeItsBodyComes) {
  ServerOptions options;
  options.refuse = [](Request& head) -> std::optional<Response> {
    EXPECT_TRUE(head.body.empty());
    if (head.Header("X-Key") == "right") return std::nullopt;
    return HttpProblem(401, "UNAUTHENTICATED", "no key");
  };
  auto server = StartServer(EchoHandler, options);
  for (const char* framing : {"Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n",
                              "Content-Length: 1000000\r\nExpect: 100-continue\r\n"}) {
    RawSocket stranger(server->port());
    stranger.Send("POST / HTTP/1.1\r\nHost: x\r\n" + std::string(framing) + "\r\n");
    const std::string answer = stranger.ReadAll();
    EXPECT_EQ(StatusLine(answer), "HTTP/1.1 401 Unauthorized") << framing;
    EXPECT_EQ(answer.find("100 Continue"), std::string::npos);
  }
  RawSocket known(server->port());
  known.Send(
      "POST / HTTP/1.1\r\nHost: x\r\nX-Key: right\r\nContent-Length: 2\r\n"
      "Expect: 100-continue\r\n\r\n");
  EXPECT_EQ(StatusLine(known.ReadUntil("\r\n\r\n")), "HTTP/1.1 100 Continue");
  known.Send("ab");
  EXPECT_EQ(StatusLine(known.ReadUntil("POST / ab")), "HTTP/1.1 200 OK");
  // The answer reaches a client that sends on regardless.
  auto over =
      ClientFor(*server).Call(Post("/", std::string(5'000'000, 'x')), Deadline::In(seconds(5)));
  ASSERT_TRUE(over.ok()) << over.status().ToString();
  EXPECT_EQ(over->status, 401);
}

TEST(HttpLimits, ABodyThatMeansNothingIsSmall) {
  auto server = StartServer(EchoHandler);
  RawSocket small(server->port());
  small.Send("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(StatusLine(small.ReadUntil("GET / hello")), "HTTP/1.1 200 OK");
  RawSocket large(server->port());
  large.Send("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_EQ(StatusLine(large.ReadAll()), "HTTP/1.1 413 Content Too Large");
}

TEST(HttpLimits, HeadOverTheLimitIs431) {
  ServerOptions options;
  options.max_header_bytes = 2000;
  auto server = StartServer(EchoHandler, options);
  RawSocket socket(server->port());
  socket.Send("GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(3000, 'a') + "\r\n\r\n");
  EXPECT_EQ(StatusLine(socket.ReadAll()), "HTTP/1.1 431 Request Header Fields Too Large");
  RawSocket endless(server->port());
  endless.Send("GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + std::string(3000, 'a'));
  EXPECT_EQ(StatusLine(endless.ReadAll()), "HTTP/1.1 431 Request Header Fields Too Large");
  RawSocket fits(server->port());
  fits.Send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " + std::string(1800, 'a') +
            "\r\n\r\n");
  EXPECT_EQ(StatusLine(fits.ReadAll()), "HTTP/1.1 200 OK");
}

TEST(HttpLimits, ConnectionsOverTheLimitGet503) {
  ServerOptions options;
  options.max_connections = 2;
  auto server = StartServer(EchoHandler, options);
  auto one = std::make_unique<RawSocket>(server->port());
  RawSocket two(server->port());
  const std::string request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  one->Send(request);
  two.Send(request);
  ASSERT_NE(one->ReadUntil("GET / "), "");
  ASSERT_NE(two.ReadUntil("GET / "), "");
  RawSocket three(server->port());
  EXPECT_EQ(StatusLine(three.ReadAll()), "HTTP/1.1 503 Service Unavailable");
  one.reset();
  const Deadline deadline = Deadline::In(seconds(5));
  std::string line;
  while (line != "HTTP/1.1 200 OK" && !deadline.Expired()) {
    RawSocket four(server->port());
    four.Send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    line = StatusLine(four.ReadAll());
  }
  EXPECT_EQ(line, "HTTP/1.1 200 OK") << "a freed place must be usable";
}

TEST(HttpLimits, SlowHeadAndSlowBodyAre408) {
  ServerOptions options;
  options.read_timeout = milliseconds(150);
  auto server = StartServer(EchoHandler, options);
  const std::vector<std::string> starts = {
      "GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"};
  for (const std::string& start : starts) {
    RawSocket socket(server->port());
    const auto begin = std::chrono::steady_clock::now();
    socket.Send(start);
    // Trickling does not help: the time counts for the whole head or body.
    std::thread trickle([&] {
      for (int i = 0; i < 60 && socket.Send("1"); ++i)
        std::this_thread::sleep_for(milliseconds(10));
    });
    const std::string answer = socket.ReadUntil("in time");
    EXPECT_EQ(StatusLine(answer), "HTTP/1.1 408 Request Timeout") << start;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(2));
    trickle.join();
  }
}

TEST(HttpLimits, IdleConnectionsAreClosed) {
  ServerOptions options;
  options.idle_timeout = milliseconds(100);
  auto server = StartServer(EchoHandler, options);
  RawSocket silent(server->port());
  EXPECT_EQ(silent.ReadAll(), "");
  RawSocket used(server->port());
  used.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(used.ReadAll(), "");
  // A client that kept its connection too long notices and tries again.
  Client client = ClientFor(*server);
  ASSERT_TRUE(client.Call(Get("/"), Deadline::In(seconds(5))).ok());
  std::this_thread::sleep_for(milliseconds(250));
  auto again = client.Call(Get("/"), Deadline::In(seconds(5)));
  EXPECT_TRUE(again.ok()) << again.status().ToString();
}

TEST(HttpLimits, AHandlerMayTakeLongerThanTheReadTimeout) {
  ServerOptions options;
  options.read_timeout = options.idle_timeout = milliseconds(50);
  auto server = StartServer(
      [](Request, ResponderPtr responder) {
        std::thread([responder] {
          std::this_thread::sleep_for(milliseconds(250));
          responder->Send(Response::Text(200, "slow"));
        }).detach();
      },
      options);
  EXPECT_EQ(ClientFor(*server).Call(Get("/"), Deadline::In(seconds(5))).value().body, "slow");
}

TEST(HttpLimits, AClientThatDoesNotReadIsCutOff) {
  ServerOptions options;
  options.write_timeout = seconds(1);
  auto server = StartServer(
      [](Request, ResponderPtr responder) {
        responder->Send(Response::Text(200, std::string(size_t{32} << 20, 'x')));
      },
      options);
  const size_t before = OpenDescriptors();
  RawSocket socket(server->port(), 4096);
  socket.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const Deadline deadline = Deadline::In(seconds(5));
  while (OpenDescriptors() < before + 2 && !deadline.Expired()) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(OpenDescriptors(), before + 2) << "the server has not accepted";
  while (OpenDescriptors() > before + 1 && !deadline.Expired()) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(OpenDescriptors(), before + 1) << "the server still holds the connection";
}

TEST(HttpLimits, AStreamThatPilesUpIsCutOff) {
  std::atomic<size_t> accepted{0};
  std::atomic<bool> refused{false};
  std::jthread writer;
  auto server = StartServer([&](Request, ResponderPtr responder) {
    writer = std::jthread([&, stream = responder->StartStream(200, {})] {
      const std::string piece(10000, 'x');
      for (int i = 0; i < 100000 && !refused; ++i) {
        if (stream->Write(piece)) {
          accepted += piece.size();
        } else {
          refused = true;
          EXPECT_FALSE(stream->open());
        }
      }
    });
  });
  RawSocket socket(server->port(), 4096);
  socket.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  const Deadline deadline = Deadline::In(seconds(10));
  while (!refused && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_TRUE(refused);
  // 1 MiB in our memory, the rest in the kernel's socket buffers.
  EXPECT_LT(accepted, size_t{64} << 20);
  socket.ReadAll(seconds(10));
}

struct BadRequest {
  std::string bytes;
  int status;
};

TEST(HttpLimits, MalformedRequestsAreRefused) {
  auto server = StartServer(EchoHandler);
  const std::vector<BadRequest> table = {
      {"GARBAGE\r\n\r\n", 400},
      {"GET\r\n\r\n", 400},
      {"GET /\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET relative HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET /?a=%4 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost x\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: x\r\nBad Name: v\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: "
       "chunked\r\n\r\n0\r\n\r\n",
       400},
      {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501},
      {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
      {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: tea\r\n\r\n", 417},
      {std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15), 400},
  };
  for (const BadRequest& bad : table) {
    RawSocket socket(server->port());
    socket.Send(bad.bytes);
    const std::string answer = socket.ReadAll();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 " + std::to_string(bad.status)))
        << bad.bytes << " -> " << StatusLine(answer);
    EXPECT_EQ(answer.find("HTTP/1.1", 1), std::string::npos) << "two answers to " << bad.bytes;
  }
}

TEST(HttpLimits, RandomBytesNeverKillTheServer) {
  ServerOptions options;
  options.read_timeout = milliseconds(50);
  auto server = StartServer(EchoHandler, options);
  std::mt19937 random(17);
  const std::string valid =
      "POST /a?b=c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
      "chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
  for (int i = 0; i < 400; ++i) {
    std::string bytes;
    if (i % 2 == 0) {
      for (size_t n = random() % 300; n > 0; --n) bytes += static_cast<char>(random());
    } else {
      bytes = valid;
      for (int flips = 0; flips < 3; ++flips) {
        bytes[random() % bytes.size()] = static_cast<char>(random());
      }
    }
    RawSocket socket(server->port());
    socket.Send(bytes);
    if (i % 20 == 0) socket.ReadUntil("\r\n\r\n", milliseconds(200));
  }
  EXPECT_EQ(ClientFor(*server).Call(Get("/alive"), Deadline::In(seconds(5))).value().body,
            "GET /alive ");
}

}  // namespace
}  // namespace lepton::http
