#include "tiers/space.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace statecached {

PageRun to_page_run(const Extent& extent) {
  SC_ASSERT(extent.offset % kPage == 0 && extent.bytes % kPage == 0);
  SC_ASSERT(extent.offset <= Space::kCapacityMax &&
            extent.bytes <= Space::kCapacityMax - extent.offset);
  return {.at = static_cast<std::uint32_t>(extent.offset / kPage),
          .count = static_cast<std::uint32_t>(extent.bytes / kPage)};
}

PageRuns to_page_runs(std::span<const Extent> extents) {
  PageRuns runs;
  runs.reserve(extents.size());
  for (const Extent& extent : extents)
    runs.push_back(to_page_run(extent));
  return runs;
}

std::uint64_t bytes_of(const PageRuns& runs) noexcept {
  std::uint64_t pages = 0;
  for (const PageRun run : runs)
    pages += run.count;
  return pages * kPage;
}

Space::Space(std::uint64_t capacity_bytes)
    : pages_(capacity_bytes / kPage),
      free_pages_(capacity_bytes / kPage) {
  SC_ASSERT(capacity_bytes <= kCapacityMax);
  if (pages_ > 0) insert(0, static_cast<std::uint32_t>(pages_));
}

void Space::insert(std::uint32_t at, std::uint32_t count) {
  by_address_.emplace(at, count);
  by_size_.emplace(count, at);
}

void Space::erase(ByAddress::iterator run) {
  by_size_.erase({run->second, run->first});
  by_address_.erase(run);
}

void Space::take(ByAddress::iterator run, std::uint32_t at, std::uint32_t count) {
  const std::uint32_t run_at = run->first;
  const std::uint32_t run_count = run->second;
  erase(run);
  const std::uint32_t before = at - run_at;
  const std::uint32_t after = run_count - before - count;
  if (before > 0) insert(run_at, before);
  if (after > 0) insert(at + count, after);
  free_pages_ -= count;
}

bool Space::take_best_fit(std::uint64_t count, PageRuns& out) {
  if (count > pages_) return false;
  const auto pages = static_cast<std::uint32_t>(count);
  const auto fit = by_size_.lower_bound({pages, 0});
  if (fit == by_size_.end()) return false;
  const std::uint32_t at = fit->second;
  take(by_address_.find(at), at, pages);
  out.push_back({.at = at, .count = pages});
  return true;
}

bool Space::allocate(std::uint64_t bytes, bool contiguous, PageRuns& out) {
  out.clear();
  std::uint64_t wanted = div_ceil(bytes, kPage);
  if (wanted > free_pages_) return false;
  if (wanted == 0) return true;
  if (!take_best_fit(wanted, out)) {
    if (contiguous) return false;
    // No single run is long enough: the longest ones whole, and the rest where it fits best.
    while (wanted > 0 && !take_best_fit(wanted, out)) {
      const auto [count, at] = *by_size_.rbegin();
      take(by_address_.find(at), at, count);
      out.push_back({.at = at, .count = count});
      wanted -= count;
    }
  }
  peak_pages_ = std::max(peak_pages_, pages_ - free_pages_);
  return true;
}

bool Space::take_exactly(PageRun run) {
  if (std::uint64_t{run.at} + run.count > pages_) return false;
  if (run.count == 0) return true;
  auto holder = by_address_.upper_bound(run.at);
  if (holder == by_address_.begin()) return false;
  --holder;
  if (std::uint64_t{holder->first} + holder->second < std::uint64_t{run.at} + run.count) {
    return false;
  }
  take(holder, run.at, run.count);
  return true;
}

bool Space::allocate_at(const PageRuns& runs) {
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (take_exactly(runs[i])) continue;
    for (std::size_t taken = 0; taken < i; ++taken)
      free(runs[taken]);
    return false;
  }
  peak_pages_ = std::max(peak_pages_, pages_ - free_pages_);
  return true;
}

void Space::free(const PageRuns& runs) {
  for (const PageRun run : runs)
    free(run);
}

void Space::free(PageRun run) {
  if (run.count == 0) return;
  const std::uint64_t end = std::uint64_t{run.at} + run.count;
  SC_ASSERT(end <= pages_);
  std::uint32_t at = run.at;
  std::uint32_t count = run.count;
  const auto next = by_address_.lower_bound(run.at);
  if (next != by_address_.begin()) {
    const auto previous = std::prev(next);
    const std::uint64_t previous_end = std::uint64_t{previous->first} + previous->second;
    SC_ASSERT(previous_end <= run.at);  // else: given back twice
    if (previous_end == run.at) {
      at = previous->first;
      count += previous->second;
      erase(previous);
    }
  }
  if (next != by_address_.end()) {
    SC_ASSERT(end <= next->first);  // else: given back twice
    if (end == next->first) {
      count += next->second;
      erase(next);
    }
  }
  insert(at, count);
  free_pages_ += run.count;
}

std::uint64_t Space::largest_free() const noexcept {
  return by_size_.empty() ? 0 : by_size_.rbegin()->first * kPage;
}

Result<> Space::check() const {
  if (by_address_.size() != by_size_.size()) {
    return fail(
        Errc::internal,
        fmt::format("space: {} runs by address, {} by size", by_address_.size(), by_size_.size()));
  }
  std::uint64_t free_pages = 0;
  std::uint64_t previous_end = 0;
  bool first = true;
  for (const auto& [at, count] : by_address_) {
    if (count == 0 || (!first && at <= previous_end)) {
      return fail(
          Errc::internal,
          fmt::format("space: free run {}+{} is empty or touches its neighbour", at, count));
    }
    if (!by_size_.contains({count, at})) {
      return fail(Errc::internal, fmt::format("space: free run {}+{} has no size", at, count));
    }
    free_pages += count;
    previous_end = std::uint64_t{at} + count;
    first = false;
  }
  if (previous_end > pages_ || free_pages != free_pages_) {
    return fail(Errc::internal,
                fmt::format("space: {} pages free in runs that end at {}, {} of {} "
                            "expected",
                            free_pages,
                            previous_end,
                            free_pages_,
                            pages_));
  }
  return {};
}

}  // namespace statecached
