// Bodies that go to files.
#include <atomic>
#include <thread>

#include "runtime/http/body_file.h"
#include "tests/runtime/http/http_test_support.h"

namespace lepton::http {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// A server that takes bodies of up to 3 MB of POST /file to files, and others of 1000 bytes; it
// answers "file SIZE" with the file's bytes after it, or "memory SIZE".
class BodyFileTest : public testing::Test {
 protected:
  explicit BodyFileTest(Duration read_timeout = seconds(10)) {
    ServerOptions options;
    options.max_body_bytes = 1000;
    options.read_timeout = read_timeout;
    options.to_file = [this](Request& head) -> std::optional<ServerOptions::ToFile> {
      EXPECT_TRUE(head.body.empty());
      if (head.path != "/file" || head.Header("X-Key") == "wrong") return std::nullopt;
      return ServerOptions::ToFile{folder_.path() / where_, 3'000'000};
    };
    server_ = StartServer(
        [this](const Request& request, const ResponderPtr& responder) {
          ++requests_;
          if (request.file == nullptr) {
            return responder->Send(
                Response::Text(200, "memory " + std::to_string(request.body.size())));
          }
          EXPECT_TRUE(request.body.empty());
          const auto fd = request.file->Open();
          std::string bytes(request.file->size(), '\0');
          EXPECT_TRUE(fd.ok());
          EXPECT_EQ(::read(fd->get(), bytes.data(), bytes.size()),
                    static_cast<ssize_t>(bytes.size()));
          responder->Send(
              Response::Text(200, "file " + std::to_string(bytes.size()) + " " + bytes));
        },
        options);
  }
  Response Call(const std::string& target, const std::string& body, const Headers& headers = {}) {
    Client client = ClientFor(*server_);
    Request request = Post(target, body);
    request.headers = headers;
    auto response = client.Call(request, Deadline::In(seconds(20)));
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    return response.ok() ? *response : Response{};
  }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_.path()),
                                             std::filesystem::directory_iterator()));
  }

  TempFolder folder_;
  std::string where_;
  std::atomic<int> requests_{0};
  std::unique_ptr<Server> server_;
};

TEST_F(BodyFileTest, LargeBodiesArriveWholeAndLeaveNothingBehind) {
  std::string body;
  for (int i = 0; body.size() < 2'500'000; ++i) body += std::to_string(i) + ",";
  const size_t descriptors = OpenDescriptors();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Call("/file", body).body, "file " + std::to_string(body.size()) + " " + body);
    EXPECT_EQ(Files(), 0u);
  }
  EXPECT_LE(OpenDescriptors(), descriptors + 2);
  EXPECT_EQ(Call("/other", "small").body, "memory 5");
  EXPECT_EQ(Call("/file", "").body, "memory 0") << "no body, no file";
}

TEST_F(BodyFileTest, ChunkedBodiesToo) {
  RawSocket socket(server_->port());
  socket.Send("POST /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string sent;
  for (int i = 0; i < 200; ++i) {
    const std::string piece(4096, static_cast<char>('a' + i % 26));
    socket.Send("1000\r\n" + piece + "\r\n");
    sent += piece;
  }
  socket.Send("0\r\n\r\n");
  const std::string answer = socket.ReadUntil(sent);
  EXPECT_TRUE(answer.ends_with("file 819200 " + sent));
}

TEST_F(BodyFileTest, EachKindHasItsLimit) {
  EXPECT_EQ(Call("/file", std::string(3'000'001, 'x')).status, 413);
  EXPECT_EQ(Call("/other", std::string(1001, 'x')).status, 413);
  EXPECT_EQ(Call("/file", std::string(1001, 'x'), {{"X-Key", "wrong"}}).status, 413)
      << "who may not send a file has the small limit";
  RawSocket chunked(server_->port());
  chunked.Send("POST /file HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2DC6C1\r\n" +
               std::string(3'000'001, 'x') + "\r\n0\r\n\r\n");
  EXPECT_TRUE(chunked.ReadAll().starts_with("HTTP/1.1 413 "));
  EXPECT_EQ(requests_, 0);
  EXPECT_EQ(Files(), 0u);
}

TEST_F(BodyFileTest, ADiskThatCannotTakeItIs507) {
  where_ = "not/there";
  const Response response = Call("/file", "some bytes");
  EXPECT_EQ(response.status, 507) << response.body;
  EXPECT_EQ(requests_, 0);
}

class ImpatientBodyFileTest : public BodyFileTest {
 protected:
  ImpatientBodyFileTest() : BodyFileTest(milliseconds(300)) {}
};

TEST_F(ImpatientBodyFileTest, ASlowUploadGoesOnAsLongAsItMoves) {
  RawSocket socket(server_->port());
  socket.Send("POST /file HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n");
  for (int i = 0; i < 10; ++i) {
    std::this_thread::sleep_for(milliseconds(100));
    socket.Send("x");
  }
  EXPECT_TRUE(socket.ReadUntil("file 10 ").starts_with("HTTP/1.1 200 "));
}

TEST_F(ImpatientBodyFileTest, AnUploadThatStandsStillIs408) {
  RawSocket socket(server_->port());
  socket.Send("POST /file HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx");
  EXPECT_TRUE(socket.ReadAll().starts_with("HTTP/1.1 408 "));
  EXPECT_EQ(requests_, 0);
}

}  // namespace
}  // namespace lepton::http
