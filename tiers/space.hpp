#pragma once
// Exact bookkeeping of the space of one tier: which 4 KiB pages of [0, capacity) are taken. It
// knows nothing of what lies there.
//
// Threads: one owner, no locks. Memory: two tree nodes for each free run. Time: O(log free runs)
// for each run taken or given back.

#include "base/result.hpp"
#include "tiers/extent.hpp"

#include <boost/container/small_vector.hpp>

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace statecached {

/// A run of pages; half the size of an Extent, for tables with millions of them.
struct PageRun {
  std::uint32_t at = 0;     ///< first page
  std::uint32_t count = 0;  ///< pages
  friend bool operator==(const PageRun&, const PageRun&) = default;
};

using PageRuns = boost::container::small_vector<PageRun, 2>;

[[nodiscard]] constexpr Extent to_extent(PageRun run) noexcept {
  return {.offset = run.at * kPage, .bytes = run.count * kPage};
}

/// The extent must lie on whole pages below Space::kCapacityMax.
[[nodiscard]] PageRun to_page_run(const Extent& extent);
[[nodiscard]] PageRuns to_page_runs(std::span<const Extent> extents);
[[nodiscard]] std::uint64_t bytes_of(const PageRuns& runs) noexcept;

class Space {
 public:
  /// 16 TiB less one page: what a PageRun can name.
  static constexpr std::uint64_t kCapacityMax = UINT64_C(0xffffffff) * kPage;

  /// Rounded down to whole pages; at most kCapacityMax.
  explicit Space(std::uint64_t capacity_bytes);

  /// Replaces `out` by runs for `bytes`, rounded up to whole pages: one run when any is long enough
  /// (the shortest such, lowest address), else several, longest first, unless `contiguous`. False:
  /// nothing was taken and `out` is empty. No bytes need no runs: true.
  [[nodiscard]] bool allocate(std::uint64_t bytes, bool contiguous, PageRuns& out);
  /// Takes exactly these runs (recovery). False, and nothing taken, when a page of them is taken
  /// already, is named twice, or lies outside.
  [[nodiscard]] bool allocate_at(const PageRuns& runs);
  /// Gives back runs, or parts of runs, that are taken. Aborts on pages that are free or outside.
  void free(const PageRuns& runs);
  void free(PageRun run);

  [[nodiscard]] std::uint64_t capacity() const noexcept { return pages_ * kPage; }

  [[nodiscard]] std::uint64_t used() const noexcept { return (pages_ - free_pages_) * kPage; }

  [[nodiscard]] std::uint64_t available() const noexcept { return free_pages_ * kPage; }

  /// Bytes of the longest free run: what a contiguous allocation can still get.
  [[nodiscard]] std::uint64_t largest_free() const noexcept;

  /// Most bytes that were ever used at once.
  [[nodiscard]] std::uint64_t peak() const noexcept { return peak_pages_ * kPage; }

  [[nodiscard]] std::size_t free_runs() const noexcept { return by_address_.size(); }

  /// Recounts both indexes against each other; the error says what does not agree.
  [[nodiscard]] Result<> check() const;

 private:
  using ByAddress = std::map<std::uint32_t, std::uint32_t>;  // at -> count; no two runs touch

  void insert(std::uint32_t at, std::uint32_t count);
  void erase(ByAddress::iterator run);
  /// Takes pages [at, at + count), which lie within the free run.
  void take(ByAddress::iterator run, std::uint32_t at, std::uint32_t count);
  [[nodiscard]] bool take_exactly(PageRun run);
  /// The shortest run of at least `count` pages, taken from its low end. False when there is none.
  [[nodiscard]] bool take_best_fit(std::uint64_t count, PageRuns& out);

  std::uint64_t pages_ = 0;
  std::uint64_t free_pages_ = 0;
  std::uint64_t peak_pages_ = 0;
  ByAddress by_address_;
  std::set<std::pair<std::uint32_t, std::uint32_t>> by_size_;  // (count, at) of the same runs
};

}  // namespace statecached
