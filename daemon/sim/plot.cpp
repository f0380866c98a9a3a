#include "daemon/sim/plot.hpp"

#include "base/units.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace statecached {
namespace {

constexpr double kWidth = 900, kHeight = 540;
// of the drawing area; the legend is right of it
constexpr double kLeft = 78, kTop = 78, kRight = 690, kBottom = 470;
constexpr double kLogFrom = 4;  // spans wider than this are drawn logarithmically

/// Distinct in hue and in lightness, also for the colour-blind (after Okabe and Ito).
constexpr std::array<const char*, 8> kColours{"#0072B2",
                                              "#D55E00",
                                              "#009E73",
                                              "#CC79A7",
                                              "#56B4E9",
                                              "#E69F00",
                                              "#000000",
                                              "#999999"};

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else
      out += c;
  }
  return out;
}

std::string label_of(double bytes) {
  struct Unit {
    double size;
    const char* name;
  };

  for (const auto& [size, name] : {Unit{1099511627776.0, "TiB"},
                                   Unit{1073741824.0, "GiB"},
                                   Unit{1048576.0, "MiB"},
                                   Unit{1024.0, "KiB"}}) {
    if (bytes >= size * 0.995) return fmt::format("{:.3g} {}", bytes / size, name);
  }
  return fmt::format("{:.0f} B", bytes);
}

/// A round step that gives about `count` ticks over `span`.
double round_step(double span, int count) {
  const double raw = span / count;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power * 1.0001) return factor * power;
  }
  return 10 * power;
}

/// Marker of a series: shape by number, so that lines are told apart without colour too.
std::string marker(std::size_t number, double x, double y, const char* colour) {
  constexpr double r = 4.5;
  switch (number % 4) {
    case 0:
      return fmt::format("<circle cx='{:.1f}' cy='{:.1f}' r='{}' fill='{}'/>\n", x, y, r, colour);
    case 1:
      return fmt::format("<rect x='{:.1f}' y='{:.1f}' width='{}' height='{}' fill='{}'/>\n",
                         x - 4,
                         y - 4,
                         8,
                         8,
                         colour);
    case 2:
      return fmt::format("<path d='M{:.1f} {:.1f}l5 9h-10z' fill='{}'/>\n", x, y - 5.5, colour);
    default:
      return fmt::format(
          "<path d='M{:.1f} {:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z' fill='{}'/>\n", x, y - 5.5, colour);
  }
}

}  // namespace

std::string plot_svg(const std::string& title,
                     const std::string& subtitle,
                     const std::vector<PlotSeries>& series) {
  double low = 0, high = 0, top = 0;
  std::vector<double> capacities;
  for (const PlotSeries& one : series) {
    for (const auto& [bytes, share] : one.points) {
      capacities.push_back(bytes);
      top = std::max(top, share);
    }
  }
  std::sort(capacities.begin(), capacities.end());
  capacities.erase(std::unique(capacities.begin(), capacities.end()), capacities.end());
  if (!capacities.empty()) {
    low = capacities.front();
    high = capacities.back();
  }
  const bool logarithmic = low > 0 && high / low > kLogFrom;
  const double step = round_step(std::max(top, 0.01) * 100, 6);
  const double y_max = std::max(step, std::ceil(top * 100 / step - 1e-9) * step);
  const auto x_of = [&](double bytes) {
    if (!(high > low)) return (kLeft + kRight) / 2;
    const double share =
        logarithmic ? std::log(bytes / low) / std::log(high / low) : (bytes - low) / (high - low);
    return kLeft + 24 + share * (kRight - kLeft - 48);
  };
  const auto y_of = [&](double share) { return kBottom - share * 100 / y_max * (kBottom - kTop); };

  std::string out = fmt::format(
      "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{1}' viewBox='0 0 {0} {1}' "
      "font-family='Helvetica, Arial, sans-serif' font-size='13' fill='#222'>\n<rect width='{0}' "
      "height='{1}' fill='#fff'/>\n",
      kWidth,
      kHeight);
  out += fmt::format(
      "<text x='{}' y='34' font-size='19' font-weight='bold'>{}</text>\n", kLeft, escaped(title));
  out += fmt::format("<text x='{}' y='56' fill='#666'>{}</text>\n", kLeft, escaped(subtitle));
  for (double percent = 0; percent <= y_max + step / 1000; percent += step) {
    const double y = y_of(percent / 100);
    out += fmt::format("<line x1='{}' y1='{:.1f}' x2='{}' y2='{:.1f}' stroke='{}'/>\n",
                       kLeft,
                       y,
                       kRight,
                       y,
                       percent > 0 ? "#e3e3e3" : "#444");
    out += fmt::format("<text x='{}' y='{:.1f}' text-anchor='end'>{:g}</text>\n",
                       kLeft - 9,
                       y + 4.5,
                       std::round(percent * 1000) / 1000);
  }
  double free_from = -1e9;  // labels must not run into each other
  for (const double bytes : capacities) {
    const double x = x_of(bytes);
    out += fmt::format("<line x1='{0:.1f}' y1='{1}' x2='{0:.1f}' y2='{2}' stroke='#444'/>\n",
                       x,
                       kBottom,
                       kBottom + 6);
    const std::string label = label_of(bytes);
    const double half = 3.6 * static_cast<double>(label.size());
    if (x - half < free_from) continue;
    out += fmt::format(
        "<text x='{:.1f}' y='{}' text-anchor='middle'>{}</text>\n", x, kBottom + 22, label);
    free_from = x + half + 8;
  }
  out += fmt::format(
      "<text x='{}' y='{}' text-anchor='middle'>capacity of the cache, all tiers{}</text>\n",
      (kLeft + kRight) / 2,
      kBottom + 50,
      logarithmic ? " (logarithmic)" : "");
  out += fmt::format(
      "<text transform='translate(26 {}) rotate(-90)' text-anchor='middle'>token hit rate (% of "
      "input tokens)</text>\n",
      (kTop + kBottom) / 2);

  // The legend in the order of the lines' right ends, so that the eye finds them.
  std::vector<std::size_t> order(series.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const auto end = [&](std::size_t i) {
      return series[i].points.empty() ? 0.0 : series[i].points.back().second;
    };
    return end(a) > end(b);
  });
  double legend_y = kTop + 14;
  for (const std::size_t i : order) {
    const char* colour = kColours[i % kColours.size()];
    std::string line;
    for (const auto& [bytes, share] : series[i].points)
      line += fmt::format("{:.1f},{:.1f} ", x_of(bytes), y_of(share));
    out += fmt::format(
        "<polyline points='{}' fill='none' stroke='{}' stroke-width='2.2' "
        "stroke-linejoin='round'{}/>\n",
        line,
        colour,
        i >= kColours.size() ? " stroke-dasharray='6 4'" : "");
    for (const auto& [bytes, share] : series[i].points)
      out += marker(i, x_of(bytes), y_of(share), colour);
    out += fmt::format("<line x1='{}' y1='{}' x2='{}' y2='{}' stroke='{}' stroke-width='2.2'/>\n",
                       kRight + 22,
                       legend_y,
                       kRight + 50,
                       legend_y,
                       colour);
    out += marker(i, kRight + 36, legend_y, colour);
    out += fmt::format(
        "<text x='{}' y='{}'>{}</text>\n", kRight + 60, legend_y + 4.5, escaped(series[i].name));
    legend_y += 25;
  }
  out += "</svg>\n";
  return out;
}

}  // namespace statecached
