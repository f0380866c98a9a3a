#include "base/units.hpp"

#include "base/prng.hpp"

#include <gtest/gtest.h>

namespace statecached {
namespace {

TEST(Units, SizesThatPeopleWrite) {
  EXPECT_EQ(parse_size("512MiB").value(), 512 * kMiB);
  EXPECT_EQ(parse_size(" 1.5 GB ").value(), 1'500'000'000U);
  EXPECT_EQ(parse_size("4096").value(), 4096U);
  EXPECT_EQ(parse_size("7 B").value(), 7U);
  EXPECT_EQ(parse_size("0").value(), 0U);
  EXPECT_EQ(parse_size("2TiB").value(), 2 * kTiB);
  EXPECT_EQ(parse_size("0.5 KiB").value(), 512U);
}

TEST(Units, SizesThatAreNone) {
  for (const char* text : {"",
                           "MiB",
                           "-1",
                           "1 mib",
                           "1..5 GB",
                           "1e3",
                           "1 XB",
                           "99999999999999999999",
                           "9000000TiB",
                           "nan",
                           "0x10"}) {
    const auto got = parse_size(text);
    ASSERT_FALSE(got) << text;
    EXPECT_EQ(got.error().code, Errc::invalid_argument);
    EXPECT_NE(got.error().text.find("MiB"), std::string::npos)
        << "the message says what is accepted";
  }
}

TEST(Units, FormattedSizesParseBack) {
  EXPECT_EQ(format_size(512 * kMiB), "512 MiB");
  EXPECT_EQ(format_size(3 * kGiB / 2), "1.5 GiB");
  EXPECT_EQ(format_size(1000), "1000 B");
  EXPECT_EQ(format_size(0), "0 B");
  Prng random(1);
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t bytes = random.next() >> (2 + random.below(60));
    const auto back = parse_size(format_size(bytes));
    ASSERT_TRUE(back) << format_size(bytes);
    ASSERT_EQ(*back, bytes) << format_size(bytes);
  }
}

TEST(Units, RoundedSizesForPeople) {
  EXPECT_EQ(format_bytes(16'056'320), "15.3 MiB");
  EXPECT_EQ(format_bytes(512 * kMiB), "512 MiB");
  EXPECT_EQ(format_bytes(1001 * kMiB + 1), "1001 MiB");
  EXPECT_EQ(format_bytes(999), "999 B");
}

TEST(Units, Durations) {
  EXPECT_EQ(parse_duration("50us").value(), Nanos{50'000});
  EXPECT_EQ(parse_duration("2 ms").value(), Nanos{2'000'000});
  EXPECT_EQ(parse_duration("1.5s").value(), Nanos{1'500'000'000});
  EXPECT_EQ(parse_duration("3m").value(), std::chrono::minutes{3});
  EXPECT_EQ(parse_duration("1h").value(), std::chrono::hours{1});
  EXPECT_EQ(parse_duration("0").value(), Nanos{0});
  for (const char* text : {"", "5", "s", "-1s", "1 day", "1e3s", "99999999999h"})
    EXPECT_FALSE(parse_duration(text)) << text;
  EXPECT_EQ(format_duration(Nanos{1'500'000'000}), "1500ms");
  EXPECT_EQ(format_duration(std::chrono::minutes{3}), "3m");
  EXPECT_EQ(format_duration(Nanos{-7}), "-7ns");
  Prng random(2);
  for (int i = 0; i < 10'000; ++i) {
    const Nanos d{static_cast<std::int64_t>(random.next() >> (2 + random.below(60)))};
    ASSERT_EQ(parse_duration(format_duration(d)).value(), d) << format_duration(d);
  }
}

TEST(Units, Fractions) {
  EXPECT_EQ(parse_fraction("1/256").value(), 1.0 / 256);
  EXPECT_EQ(parse_fraction("0.5").value(), 0.5);
  EXPECT_EQ(parse_fraction(" 3 / 4 ").value(), 0.75);
  for (const char* text : {"", "0", "-1", "1/0", "1/", "/2", "a", "1/2/3", "inf", "0x1"})
    EXPECT_FALSE(parse_fraction(text)) << text;
}

TEST(Units, Rounding) {
  EXPECT_EQ(round_up(1, kPage), kPage);
  EXPECT_EQ(round_up(0, kPage), 0U);
  EXPECT_EQ(round_down(kPage + 1, kPage), kPage);
  EXPECT_EQ(div_ceil(~0ULL, 2), 1ULL << 63U);
}

}  // namespace
}  // namespace statecached
