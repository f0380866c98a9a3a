#include "base/ids.hpp"

#include "base/queue.hpp"
#include "base/result.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

namespace statecached {
namespace {

TEST(Ids, HexRoundTrip) {
  const Id128 id{.low = 0x0123456789abcdefULL, .high = 0xfedcba9876543210ULL};
  Id128 back;
  ASSERT_TRUE(parse_hex(to_hex(id), back));
  EXPECT_EQ(back, id);
  Digest digest;
  for (std::size_t i = 0; i < 32; ++i)
    digest.bytes[i] = static_cast<std::byte>(i * 7);
  Digest digest_back;
  ASSERT_TRUE(parse_hex(to_hex(digest), digest_back));
  EXPECT_EQ(digest_back, digest);
  EXPECT_EQ(to_hex(digest, 4).size(), 8U);
  for (const char* text :
       {"", "00", "zz23456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef0"}) {
    EXPECT_FALSE(parse_hex(text, back)) << text;
  }
}

TEST(Result, CarriesCodeAndMessage) {
  errno = ENOSPC;
  const Result<int> full = fail_errno("write /x");
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code, Errc::no_space);
  EXPECT_EQ(full.error().message(), "write /x: No space left on device (no_space)");
  const auto through = [&]() -> Result<std::string> {
    SC_ASSIGN(const int value, Result<int>(full));
    return std::to_string(value);
  };
  EXPECT_EQ(through().error().code, Errc::no_space);
}

TEST(SpscQueue, KeepsOrderAcrossThreadsAndRefusesWhenFull) {
  SpscQueue<int> queue(4);
  for (int i = 0; i < 4; ++i)
    EXPECT_TRUE(queue.push(int{i}));
  EXPECT_FALSE(queue.push(4));
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(queue.pop(), i);
  EXPECT_EQ(queue.pop(), std::nullopt);
  std::thread producer([&] {
    for (int i = 0; i < 100'000;) {
      if (queue.push(int{i}))
        ++i;
      else
        std::this_thread::yield();
    }
  });
  int wrong = 0;
  for (int want = 0; want < 100'000;) {
    const auto got = queue.pop();
    if (!got) {
      std::this_thread::yield();
      continue;
    }
    wrong += *got == want ? 0 : 1;
    ++want;
  }
  producer.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_TRUE(queue.empty());
}

TEST(Mailbox, TakesAllAndIsBounded) {
  Mailbox<int> box(2);
  std::vector<int> out;
  EXPECT_FALSE(box.take(out));
  EXPECT_TRUE(box.push(1));
  EXPECT_TRUE(box.push(2));
  EXPECT_FALSE(box.push(3));
  EXPECT_TRUE(box.take(out));
  EXPECT_EQ(out, (std::vector<int>{1, 2}));
  EXPECT_TRUE(box.push(3));
}

}  // namespace
}  // namespace statecached
