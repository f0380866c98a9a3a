#include "client/workload/trace.hpp"

#include "client/workload/continuation.hpp"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace statecached {
namespace {

class Trace : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "statecached-trace-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }

  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text, bool zip = false) {
    const std::string path = folder_ + "/" + name;
    if (zip) {
      gzFile file = gzopen(path.c_str(), "wb");
      EXPECT_EQ(gzwrite(file, text.data(), static_cast<unsigned>(text.size())),
                static_cast<int>(text.size()));
      gzclose(file);
    } else {
      std::ofstream(path) << text;
    }
    return path;
  }

  static std::vector<TraceRequest> all(const std::string& path, std::uint64_t limit = 0) {
    auto reader = TraceReader::open(path, limit);
    EXPECT_TRUE(reader) << reader.error().message();
    std::vector<TraceRequest> requests;
    TraceRequest request;
    while ((*reader)->next(request))
      requests.push_back(request);
    EXPECT_EQ((*reader)->error(), nullptr);
    EXPECT_EQ((*reader)->requests(), requests.size());
    return requests;
  }

  std::string folder_;
};

std::size_t common_prefix(const std::vector<Token>& a, const std::vector<Token>& b) {
  return static_cast<std::size_t>(
      std::mismatch(a.begin(),
                    a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())),
                    b.begin())
          .first -
      a.begin());
}

TEST_F(Trace, TokensPlainAndGzipWithLimit) {
  const std::string text =
      "{\"session_id\":0,\"turn_id\":0,\"ts\":0.5,\"input_tokens\":[1,2,3],\"output_tokens\":[4]}"
      "\n\n"
      "{\"session_id\":0,\"turn_id\":1,\"ts\":2,\"input_tokens\":[1,2,3,4,5],\"output_tokens\":[6,"
      "7]}";
  for (const bool zip : {false, true}) {
    const auto requests = all(write(zip ? "t.gz" : "t", text, zip));
    ASSERT_EQ(requests.size(), 2U);
    EXPECT_EQ(requests[0].input, (std::vector<Token>{1, 2, 3}));
    EXPECT_EQ(requests[1].output, (std::vector<Token>{6, 7}));
    EXPECT_DOUBLE_EQ(requests[0].timestamp_ms, 500);
    EXPECT_EQ(requests[1].index, 1U);
    EXPECT_EQ(requests[0].after, kNoRequest);
    EXPECT_EQ(requests[1].after, 0U) << "the same session";
  }
  EXPECT_EQ(all(folder_ + "/t", 1).size(), 1U);
}

TEST_F(Trace, DamagedLinesAreErrorsThatNameTheLine) {
  for (const char* second :
       {"{", "[]", "{\"input_tokens\":[1]}", "{\"input_tokens\":[-1],\"output_tokens\":[]}"}) {
    auto reader = TraceReader::open(
        write("bad", std::string("{\"input_tokens\":[1],\"output_tokens\":[]}\n") + second), 0);
    ASSERT_TRUE(reader);
    TraceRequest request;
    EXPECT_TRUE((*reader)->next(request));
    EXPECT_FALSE((*reader)->next(request));
    ASSERT_NE((*reader)->error(), nullptr);
    EXPECT_NE((*reader)->error()->text.find(":2"), std::string::npos) << (*reader)->error()->text;
  }
  EXPECT_FALSE(TraceReader::open(write("empty", ""), 0));
  EXPECT_FALSE(TraceReader::open(write("other", "{\"a\":1}\n"), 0));
  EXPECT_FALSE(TraceReader::open(folder_ + "/none", 0));
  EXPECT_FALSE(TraceReader::open(folder_, 0)) << "a folder without text";
}

TEST_F(Trace, EqualBlocksAreEqualTokensAndOthersPartAtOnce) {
  const auto requests = all(
      write("ids",
            "{\"timestamp\":1,\"input_length\":1100,\"output_length\":3,\"hash_ids\":[1,2,3]}\n"
            "{\"timestamp\":2,\"input_length\":1030,\"output_length\":3,\"hash_ids\":[1,4,5]}\n"
            "{\"timestamp\":3,\"input_length\":1101,\"output_length\":3,\"hash_ids\":[1,2,6]}\n"));
  ASSERT_EQ(requests.size(), 3U);
  EXPECT_EQ(common_prefix(requests[0].input, requests[1].input), 512U);
  EXPECT_EQ(common_prefix(requests[0].input, requests[2].input), 1024U);
  EXPECT_EQ(requests[0].output.size(), 3U);
  EXPECT_NE(requests[0].output, requests[1].output);
}

TEST_F(Trace, ANextTurnBeginsWithTheTailAndTheOutput) {
  const auto requests = all(
      write("turns",
            "{\"timestamp\":1,\"input_length\":600,\"output_length\":700,\"hash_ids\":[1,2]}\n"
            "{\"timestamp\":2,\"input_length\":1500,\"output_length\":5,\"hash_ids\":[1,7,8]}\n"
            "{\"timestamp\":3,\"input_length\":1500,\"output_length\":5,\"hash_ids\":[1,9,10]}\n"
            "{\"timestamp\":4,\"input_length\":1495,\"output_length\":5,\"hash_ids\":[1,7,11]}\n"));
  ASSERT_EQ(requests.size(), 4U);
  auto turn = requests[0].input;
  turn.insert(turn.end(), requests[0].output.begin(), requests[0].output.end());
  EXPECT_EQ(requests[1].continues, 1300U);
  EXPECT_EQ(requests[1].after, 0U);
  EXPECT_EQ(requests[0].after, kNoRequest);
  EXPECT_EQ(common_prefix(turn, requests[1].input), 1300U);
  EXPECT_EQ(requests[2].continues, 0U) << "the first was continued already";
  EXPECT_EQ(common_prefix(turn, requests[2].input), 512U);
  EXPECT_EQ(requests[3].continues, 0U) << "the second is too long for it";
  EXPECT_EQ(common_prefix(requests[1].input, requests[3].input), 1024U)
      << "block 7 keeps what it began with";
}

TEST_F(Trace, OfSeveralTheLongestThenTheEarliest) {
  const auto requests =
      all(write("several",
                "{\"timestamp\":1,\"input_length\":520,\"output_length\":10,\"hash_ids\":[1,2]}\n"
                "{\"timestamp\":2,\"input_length\":520,\"output_length\":20,\"hash_ids\":[1,3]}\n"
                "{\"timestamp\":3,\"input_length\":530,\"output_length\":10,\"hash_ids\":[1,4]}\n"
                "{\"timestamp\":4,\"input_length\":541,\"output_length\":1,\"hash_ids\":[1,5]}\n"
                "{\"timestamp\":5,\"input_length\":540,\"output_length\":1,\"hash_ids\":[1,6]}\n"));
  // 530: none before with a sum below... 520 + 10 = 530 is not less than 530, so the third
  // continues nothing.
  EXPECT_EQ(requests[2].continues, 0U);
  EXPECT_EQ(common_prefix(requests[1].input, requests[3].input), 520U);
  EXPECT_EQ(common_prefix(requests[0].input, requests[4].input), 520U)
      << "sums of 540 are not below 540";
}

TEST_F(Trace, DocumentsBecomeConversations) {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "line " + std::to_string(i * i) + "\n";
  write("a.md", text);
  write("b.txt", std::string(text.rbegin(), text.rend()));
  write("image.png", text);
  const auto requests = all(folder_);
  ASSERT_EQ(requests.size(), 4U * 6U);
  EXPECT_EQ(requests, all(folder_)) << "the same folder gives the same workload";
  std::size_t continued = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].continues == 0) continue;
    ++continued;
    const bool follows =
        std::any_of(requests.begin(),
                    requests.begin() + static_cast<std::ptrdiff_t>(i),
                    [&](const TraceRequest& before) {
                      auto turn = before.input;
                      turn.insert(turn.end(), before.output.begin(), before.output.end());
                      return turn.size() < requests[i].input.size() &&
                             common_prefix(turn, requests[i].input) == turn.size();
                    });
    EXPECT_TRUE(follows) << i;
  }
  EXPECT_EQ(continued, 4U * 5U);
}

/// The figures that are published beside the conversation trace. Needs the trace:
/// STATECACHED_TRACES names its folder.
TEST(ConversationTrace, HasThePublishedFigures) {
  const char* folder = std::getenv("STATECACHED_TRACES");
  if (folder == nullptr) GTEST_SKIP() << "STATECACHED_TRACES is not set";
  const std::string path = std::string(folder) + "/conversation_trace.jsonl.gz";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
  auto reader = TraceReader::open(path, 0);
  ASSERT_TRUE(reader) << reader.error().message();
  std::uint64_t requests = 0, continued = 0, tokens = 0, continued_tokens = 0, longest = 0;
  TraceRequest request;
  while ((*reader)->next(request)) {
    ++requests;
    tokens += request.input.size();
    longest = std::max<std::uint64_t>(longest, request.input.size());
    if (request.continues == 0) continue;
    ++continued;
    continued_tokens += request.continues;
  }
  EXPECT_EQ((*reader)->error(), nullptr);
  EXPECT_EQ(requests, 12031U);
  EXPECT_EQ(continued, 4870U);
  EXPECT_EQ(longest, 126195U);
  EXPECT_NEAR(static_cast<double>(tokens), 144.8e6, 0.05e6);
  EXPECT_NEAR(static_cast<double>(continued_tokens) / static_cast<double>(tokens), 0.31, 0.005);
}

}  // namespace
}  // namespace statecached
