#include "client/workload/trace.hpp"

#include "client/workload/continuation.hpp"
#include "client/workload/documents.hpp"

#include <nlohmann/json.hpp>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <limits>
#include <unordered_map>
#include <utility>

namespace statecached {
namespace {

using Json = nlohmann::json;

/// Lines of a plain or gzip file.
class Lines {
 public:
  static Result<std::unique_ptr<Lines>> open(const std::string& path) {
    gzFile file = gzopen(path.c_str(), "rb");
    if (file == nullptr) return fail_errno("cannot open the trace " + path);
    gzbuffer(file, 1U << 18U);
    return std::unique_ptr<Lines>(new Lines(file, path));
  }

  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  ~Lines() { gzclose(file_); }

  /// The next line that is not empty. False: the end.
  Result<bool> next(std::string& line) {
    do {
      line.clear();
      for (;;) {
        if (at_ == end_) {
          const int got = gzread(file_, buffer_.data(), static_cast<unsigned>(buffer_.size()));
          if (got < 0)
            return fail(Errc::corrupt,
                        path_ + ": damaged gzip data near line " + std::to_string(number_ + 1));
          at_ = 0;
          end_ = static_cast<std::size_t>(got);
          if (got == 0) break;
        }
        const char* start = buffer_.data() + at_;
        const auto* stop = static_cast<const char*>(std::memchr(start, '\n', end_ - at_));
        const std::size_t take =
            stop == nullptr ? end_ - at_ : static_cast<std::size_t>(stop - start);
        line.append(start, take);
        at_ += take;
        if (stop != nullptr) {
          ++at_;
          break;
        }
      }
      ++number_;
      if (line.empty() && at_ == end_ && gzeof(file_) != 0) return false;
    } while (line.find_first_not_of(" \t\r") == std::string::npos);
    return true;
  }

  void rewind() {
    gzrewind(file_);
    at_ = end_ = 0;
    number_ = 0;
  }

  [[nodiscard]] std::string here() const { return path_ + ":" + std::to_string(number_); }

 private:
  Lines(gzFile file, std::string path) : file_(file), path_(std::move(path)), buffer_(1U << 18U) {}

  gzFile file_;
  std::string path_;
  std::vector<char> buffer_;
  std::size_t at_ = 0;
  std::size_t end_ = 0;
  std::uint64_t number_ = 0;
};

Result<Json> parse_line(const Lines& lines, const std::string& line) {
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return fail(Errc::corrupt, lines.here() + ": not a JSON object");
  return json;
}

/// A non-negative integer of at most 32 bits.
bool take(const Json& json, const char* key, std::uint32_t& out) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_unsigned()) return false;
  const auto value = found->get<std::uint64_t>();
  if (value > std::numeric_limits<std::uint32_t>::max()) return false;
  out = static_cast<std::uint32_t>(value);
  return true;
}

bool take(const Json& json, const char* key, std::vector<Token>& out) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_array()) return false;
  out.clear();
  out.reserve(found->size());
  for (const Json& token : *found) {
    if (!token.is_number_unsigned()) return false;
    out.push_back(static_cast<Token>(token.get<std::uint64_t>()));
  }
  return true;
}

double number_or_zero(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number() ? found->get<double>() : 0.0;
}

class BlockIdSource final : public TraceSource {
 public:
  explicit BlockIdSource(std::unique_ptr<Lines> lines) : lines_(std::move(lines)) {}

  Result<bool> next(TraceRequest& out) override {
    SC_ASSIGN(const bool more, lines_->next(line_));
    if (!more) return false;
    SC_ASSIGN(const Json json, parse_line(*lines_, line_));
    std::uint32_t input = 0;
    std::uint32_t output = 0;
    const auto ids = json.find("hash_ids");
    const bool whole = take(json, "input_length", input) && take(json, "output_length", output) &&
                       ids != json.end() && ids->is_array() &&
                       ids->size() == (input + std::size_t{kTraceBlock} - 1) / kTraceBlock &&
                       std::all_of(ids->begin(), ids->end(), [](const Json& id) {
                         return id.is_number_unsigned();
                       });
    if (!whole) {
      return fail(
          Errc::corrupt,
          lines_->here() +
              ": needs input_length, output_length, and a hash id for each 512 input tokens");
    }
    ids_.clear();
    for (const Json& id : *ids)
      ids_.push_back(id.get<std::uint64_t>());
    out.timestamp_ms = number_or_zero(json, "timestamp");
    const auto continued = tokens_.expand(out.index, input, output, ids_, out.input);
    out.continues = continued.tokens;
    out.after = continued.any ? continued.index : kNoRequest;
    ContinuationTokens::output(out.index, output, out.output);
    return true;
  }

 private:
  std::unique_ptr<Lines> lines_;
  std::string line_;
  std::vector<std::uint64_t> ids_;
  ContinuationTokens tokens_;
};

class TokenSource final : public TraceSource {
 public:
  explicit TokenSource(std::unique_ptr<Lines> lines) : lines_(std::move(lines)) {}

  Result<bool> next(TraceRequest& out) override {
    SC_ASSIGN(const bool more, lines_->next(line_));
    if (!more) return false;
    SC_ASSIGN(const Json json, parse_line(*lines_, line_));
    if (!take(json, "input_tokens", out.input) || !take(json, "output_tokens", out.output)) {
      return fail(
          Errc::corrupt,
          lines_->here() + ": needs input_tokens and output_tokens, lists of token numbers");
    }
    out.timestamp_ms = number_or_zero(json, "ts") * 1000.0;
    out.continues = 0;
    out.after = kNoRequest;
    std::uint32_t session = 0;
    if (take(json, "session_id", session)) {
      const auto [last, fresh] = last_turn_.try_emplace(session, out.index);
      if (!fresh) out.after = std::exchange(last->second, out.index);
    }
    return true;
  }

 private:
  std::unique_ptr<Lines> lines_;
  std::string line_;
  std::unordered_map<std::uint32_t, std::uint64_t> last_turn_;  ///< of each session
};

}  // namespace

Result<std::unique_ptr<TraceReader>> TraceReader::open(const std::string& path,
                                                       std::uint64_t limit) {
  const std::uint64_t most = limit == 0 ? std::numeric_limits<std::uint64_t>::max() : limit;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    SC_ASSIGN(auto documents, DocumentSource::open(path));
    const std::uint64_t count = documents->requests();
    std::unique_ptr<TraceReader> reader(new TraceReader(std::move(documents)));
    reader->requests_ = std::min(most, count);
    return reader;
  }
  SC_ASSIGN(auto lines, Lines::open(path));
  std::string line;
  SC_ASSIGN(const bool any, lines->next(line));
  if (!any) return fail(Errc::corrupt, path + ": an empty trace");
  SC_ASSIGN(const Json first, parse_line(*lines, line));
  const bool ids = first.contains("hash_ids");
  if (!ids && !first.contains("input_tokens")) {
    return fail(Errc::corrupt, path + ": neither hash_ids nor input_tokens in its first line");
  }
  std::uint64_t count = 1;
  while (count < most) {
    SC_ASSIGN(const bool more, lines->next(line));
    if (!more) break;
    ++count;
  }
  lines->rewind();
  std::unique_ptr<TraceSource> source;
  if (ids) {
    source = std::make_unique<BlockIdSource>(std::move(lines));
  } else {
    source = std::make_unique<TokenSource>(std::move(lines));
  }
  std::unique_ptr<TraceReader> reader(new TraceReader(std::move(source)));
  reader->requests_ = std::min(most, count);
  return reader;
}

bool TraceReader::next(TraceRequest& out) {
  if (failed_ || given_ >= requests_) return false;
  out.index = given_;
  auto more = source_->next(out);
  if (!more) {
    failed_ = true;
    error_ = std::move(more.error());
    return false;
  }
  if (!*more) return false;
  ++given_;
  return true;
}

}  // namespace statecached
