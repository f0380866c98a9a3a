#include "base/log.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace statecached {
namespace {

std::vector<std::pair<log::Level, std::string>> g_lines;

TEST(Log, GoesToTheSinkFormatted) {
  log::set_sink([](log::Level level, std::string_view text) { g_lines.emplace_back(level, text); });
  log::debug("{} of {}", 1, 2);
  log::error("drive {} is gone", "/a");
  log::set_sink(nullptr);
  ASSERT_EQ(g_lines.size(), 2U);
  EXPECT_EQ(g_lines[0], std::make_pair(log::Level::debug, std::string("1 of 2")));
  EXPECT_EQ(g_lines[1], std::make_pair(log::Level::error, std::string("drive /a is gone")));
}

TEST(Log, WithoutASinkOnlyWarningsAndErrorsAreSeen) {
  log::set_sink(nullptr);
  testing::internal::CaptureStderr();
  log::info("quiet");
  log::warn("loud");
  log::error("louder");
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "statecached: warning: loud\nstatecached: error: louder\n");
}

}  // namespace
}  // namespace statecached
