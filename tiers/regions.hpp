#pragma once
// The space of a memory tier that may consist of several arenas, one for each trust domain, side by
// side in one range of addresses. A run never crosses from one into the next.
//
// What is asked of it concerns the region in focus; with none in focus, all of them (and allocation
// takes the first). Threads as for Space.

#include "tiers/space.hpp"

#include <algorithm>
#include <span>
#include <vector>

namespace statecached {

class Regions {
 public:
  static constexpr std::size_t kAll = static_cast<std::size_t>(-1);

  explicit Regions(std::uint64_t bytes) : Regions(std::vector<std::uint64_t>{bytes}) {}

  /// Each rounded down to whole pages.
  explicit Regions(const std::vector<std::uint64_t>& bytes) {
    std::uint32_t at = 0;
    for (const std::uint64_t size : bytes) {
      parts_.push_back({at, Space(size)});
      at += static_cast<std::uint32_t>(size / kPage);
    }
  }

  void focus(std::size_t region) noexcept { focus_ = parts_.size() == 1 ? kAll : region; }

  [[nodiscard]] std::size_t count() const noexcept { return parts_.size(); }

  [[nodiscard]] bool allocate(std::uint64_t bytes, bool contiguous, PageRuns& out) {
    Part& part = parts_[focus_ == kAll ? 0 : focus_];
    const bool done = part.space.allocate(bytes, contiguous, out);
    for (PageRun& run : out)
      run.at += part.at;
    peak_ = std::max(peak_, used());
    return done;
  }

  [[nodiscard]] bool allocate_at(const PageRuns& runs) {
    for (std::size_t i = 0; i < runs.size(); ++i) {
      Part* const part = holder(runs[i]);
      if (part != nullptr && part->space.allocate_at({local(*part, runs[i])})) continue;
      for (std::size_t taken = 0; taken < i; ++taken)
        free(runs[taken]);
      return false;
    }
    peak_ = std::max(peak_, used());
    return true;
  }

  void free(const PageRuns& runs) {
    for (const PageRun run : runs)
      free(run);
  }

  void free(PageRun run) {
    if (run.count == 0) return;
    Part* const part = holder(run);
    SC_ASSERT(part != nullptr);
    part->space.free(local(*part, run));
  }

  [[nodiscard]] std::uint64_t capacity() const noexcept {
    return sum([](const Space& space) { return space.capacity(); });
  }

  [[nodiscard]] std::uint64_t available() const noexcept {
    return sum([](const Space& space) { return space.available(); });
  }

  [[nodiscard]] std::uint64_t largest_free() const noexcept {
    std::uint64_t most = 0;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      if (focus_ == kAll || focus_ == i) most = std::max(most, parts_[i].space.largest_free());
    }
    return most;
  }

  /// Of all regions, whatever is in focus.
  [[nodiscard]] std::uint64_t used() const noexcept {
    std::uint64_t out = 0;
    for (const Part& part : parts_)
      out += part.space.used();
    return out;
  }

  [[nodiscard]] std::uint64_t peak() const noexcept { return peak_; }

  [[nodiscard]] Result<> check() const {
    for (const Part& part : parts_)
      SC_TRY(part.space.check());
    return {};
  }

 private:
  struct Part {
    std::uint32_t at = 0;  ///< first page
    Space space;
  };

  [[nodiscard]] Part* holder(PageRun run) {
    for (Part& part : parts_) {
      const std::uint64_t pages = part.space.capacity() / kPage;
      if (run.at >= part.at && std::uint64_t{run.at} + run.count <= part.at + pages) return &part;
    }
    return nullptr;
  }

  [[nodiscard]] static PageRun local(const Part& part, PageRun run) {
    return {run.at - part.at, run.count};
  }

  template <class Of>
  [[nodiscard]] std::uint64_t sum(Of of) const noexcept {
    if (focus_ != kAll) return of(parts_[focus_].space);
    std::uint64_t out = 0;
    for (const Part& part : parts_)
      out += of(part.space);
    return out;
  }

  std::vector<Part> parts_;
  std::size_t focus_ = kAll;
  std::uint64_t peak_ = 0;
};

}  // namespace statecached
