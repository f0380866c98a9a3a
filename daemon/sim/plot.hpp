#pragma once
// A picture of hit rate over capacity, as SVG text. Pure.

#include <string>
#include <utility>
#include <vector>

namespace statecached {

struct PlotSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< bytes, share in [0, 1]; ascending bytes
};

/// `title` and `subtitle` stand above. Capacity is drawn on a logarithmic axis when it spans more
/// than a factor of four.
[[nodiscard]] std::string plot_svg(const std::string& title,
                                   const std::string& subtitle,
                                   const std::vector<PlotSeries>& series);

}  // namespace statecached
