#include "client/workload/documents.hpp"

#include "base/prng.hpp"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

namespace statecached {
namespace {

namespace fs = std::filesystem;

// bytes, so tokens: a long prompt for a model of today
constexpr std::size_t kDocumentMax = 24 * 1024;
constexpr std::size_t kDocumentMin = 1024;
constexpr std::size_t kDocumentsMax = 40;
constexpr std::uint32_t kTurns = 6;
constexpr std::size_t kQuestion = 160;
constexpr std::size_t kAnswer = 400;

constexpr std::string_view kPreamble =
    "You are a careful assistant for the people who run this software. Below is one of its "
    "documents. "
    "Answer each question from the document alone, say where in it the answer stands, and say so "
    "when it "
    "does not answer the question. Be brief. Do not repeat the question. Document:\n\n";

bool is_text(const fs::path& path) {
  static constexpr std::array<std::string_view, 8> kEndings{
      ".md", ".txt", ".hpp", ".cpp", ".h", ".py", ".toml", ".cmake"};
  const std::string ending = path.extension().string();
  return std::find(kEndings.begin(), kEndings.end(), ending) != kEndings.end();
}

std::vector<Token> bytes_of(std::string_view text) {
  std::vector<Token> tokens(text.size());
  std::transform(text.begin(), text.end(), tokens.begin(), [](char c) {
    return static_cast<Token>(static_cast<unsigned char>(c));
  });
  return tokens;
}

void append_passage(const std::vector<Token>& document,
                    Prng& chance,
                    std::size_t length,
                    std::vector<Token>& out) {
  const std::size_t size = std::min(length / 2 + chance.below(length), document.size());
  const std::size_t from = chance.below(document.size() - size + 1);
  out.insert(out.end(),
             document.begin() + static_cast<std::ptrdiff_t>(from),
             document.begin() + static_cast<std::ptrdiff_t>(from + size));
}

std::vector<fs::path> text_files(const std::string& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (it->is_directory() && (name.starts_with(".") || name == "build")) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file() && is_text(it->path())) {
      paths.push_back(it->path());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

Result<std::unique_ptr<DocumentSource>> DocumentSource::open(const std::string& folder) {
  std::unique_ptr<DocumentSource> source(new DocumentSource);
  source->preamble_ = bytes_of(kPreamble);
  for (const fs::path& path : text_files(folder)) {
    std::ifstream file(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.size() < kDocumentMin) continue;
    text.resize(std::min(text.size(), kDocumentMax));
    source->documents_.push_back(bytes_of(text));
  }
  if (source->documents_.empty()) {
    return fail(Errc::not_found,
                folder + ": no text files of at least 1 KiB to make a workload of");
  }
  auto& documents = source->documents_;
  std::stable_sort(documents.begin(), documents.end(), [](const auto& a, const auto& b) {
    return a.size() > b.size();
  });
  if (documents.size() > kDocumentsMax) documents.resize(kDocumentsMax);
  source->plan();
  return source;
}

void DocumentSource::plan() {
  for (std::size_t d = 0; d < 2 * documents_.size(); ++d) {
    conversations_.emplace_back().document = d % documents_.size();
  }
  // At any time a handful of conversations is going on; when one ends the next begins.
  Prng chance(20);
  std::vector<std::uint32_t> left(conversations_.size(), kTurns);
  std::vector<std::size_t> active;
  std::size_t next = 0;
  while (next < left.size() || !active.empty()) {
    while (active.size() < 12 && next < left.size())
      active.push_back(next++);
    const std::size_t pick = chance.below(active.size());
    order_.push_back(active[pick]);
    if (--left[active[pick]] == 0) active.erase(active.begin() + static_cast<std::ptrdiff_t>(pick));
  }
}

Result<bool> DocumentSource::next(TraceRequest& out) {
  if (at_ == order_.size()) return false;
  const std::size_t which = order_[at_];
  Conversation& talk = conversations_[which];
  const std::vector<Token>& document = documents_[talk.document];
  Prng chance(mix64(which) + talk.turns);
  if (talk.turns == 0) {
    talk.history = preamble_;
    talk.history.insert(talk.history.end(), document.begin(), document.end());
    out.continues = 0;
  } else {
    out.continues = static_cast<std::uint32_t>(talk.history.size());
  }
  append_passage(document, chance, kQuestion, talk.history);
  talk.history.push_back('\n');
  out.after = std::exchange(talk.last, out.index);
  out.timestamp_ms = static_cast<double>(at_) * 1000.0;
  out.input = talk.history;
  out.output.clear();
  append_passage(document, chance, kAnswer, out.output);
  out.output.push_back('\n');
  talk.history.insert(talk.history.end(), out.output.begin(), out.output.end());
  ++at_;
  if (++talk.turns == kTurns) talk.history = {};
  return true;
}

}  // namespace statecached
