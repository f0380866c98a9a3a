#include "client/workload/model.hpp"

#include "base/id_chain.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>

namespace statecached {
namespace {

using Json = nlohmann::json;

/// Reads fields of one JSON object; remembers the first that is wrong.
class Fields {
 public:
  Fields(const Json& json, std::string where, std::string& problem)
      : json_(json),
        where_(std::move(where)),
        problem_(problem) {
    if (!json_.is_object()) complain("must be an object");
  }

  std::uint64_t number(const char* key, bool needed) {
    const Json* value = find(key);
    if (value == nullptr || value->is_null()) {
      if (needed) complain(std::string("needs ") + key);
      return 0;
    }
    if (!value->is_number_unsigned()) {
      complain(std::string(key) + " must be a whole number");
      return 0;
    }
    return value->get<std::uint64_t>();
  }

  std::uint32_t small(const char* key, bool needed) {
    const std::uint64_t value = number(key, needed);
    if (value > std::numeric_limits<std::uint32_t>::max())
      complain(std::string(key) + " is too large");
    return static_cast<std::uint32_t>(value);
  }

  bool flag(const char* key) {
    const Json* value = find(key);
    return value != nullptr && value->is_boolean() && value->get<bool>();
  }

  std::string text(const char* key) {
    const Json* value = find(key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
  }

  /// An object, or a list of them, or nothing.
  std::vector<Json> objects(const char* key) {
    const Json* value = find(key);
    if (value == nullptr || value->is_null()) return {};
    if (value->is_array()) return value->get<std::vector<Json>>();
    return {*value};
  }

  void complain(const std::string& what) {
    if (problem_.empty()) problem_ = where_ + " " + what;
  }

 private:
  const Json* find(const char* key) const {
    if (!json_.is_object()) return nullptr;
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }

  const Json& json_;
  std::string where_;
  std::string& problem_;
};

AttentionGeometry attention_of(const Json& json, std::string& problem) {
  Fields fields(json, "attention", problem);
  AttentionGeometry out;
  out.layers = fields.small("layers", true);
  out.query_heads = fields.small("query_heads", true);
  out.kv_heads = fields.small("kv_heads", true);
  out.head_dim = fields.small("head_dim", true);
  out.input_width = fields.small("input_width", false);
  out.window = fields.small("window", false);
  out.gated_query = fields.flag("gated_query");
  for (const Json& inner : fields.objects("mla")) {
    Fields mla(inner, "attention.mla", problem);
    out.kv_rank = mla.small("kv_lora_rank", true);
    out.rope_dim = mla.small("rope_dim", true);
    out.nope_dim = mla.small("nope_dim", true);
    out.v_dim = mla.small("v_dim", true);
  }
  return out;
}

RecurrentGeometry recurrent_of(const Json& json, std::string& problem) {
  Fields fields(json, "recurrent", problem);
  RecurrentGeometry out;
  out.kind = parse_recurrent_kind(fields.text("kind"));
  if (out.kind == RecurrentKind::none)
    fields.complain("has an unknown kind '" + fields.text("kind") + "'");
  const bool mamba1 = out.kind == RecurrentKind::mamba1;
  const bool mamba2 = out.kind == RecurrentKind::mamba2;
  const bool gdn = out.kind == RecurrentKind::gdn;
  const bool head_and_width =
      out.kind == RecurrentKind::kda || out.kind == RecurrentKind::lightning;
  out.layers = fields.small("layers", true);
  out.conv = fields.small("K", out.kind != RecurrentKind::lightning);
  out.inner = fields.small("di", mamba1);
  out.dt_rank = fields.small("R", mamba1);
  out.state = fields.small("N", mamba1 || mamba2);
  out.heads = fields.small("H", mamba2 || head_and_width);
  out.head_dim = mamba2 ? fields.small("P", true) : fields.small("D", head_and_width);
  out.groups = fields.small("G", mamba2);
  out.chunk = fields.small("Q", false);
  out.key_heads = fields.small("Hk", gdn);
  out.key_dim = fields.small("Dk", gdn);
  out.value_heads = fields.small("Hv", gdn);
  out.value_dim = fields.small("Dv", gdn);
  return out;
}

FfnGeometry ffn_of(const Json& json, std::string& problem) {
  Fields fields(json, "ffn", problem);
  FfnGeometry out;
  const std::string kind = fields.text("kind");
  if (kind != "swiglu" && kind != "relu2")
    fields.complain("has an unknown kind '" + kind + "' (swiglu, relu2)");
  out.gated = kind == "swiglu";
  out.layers = fields.small("layers", true);
  out.d_ff = fields.small("d_ff", true);
  out.experts = fields.small("experts", false);
  out.top_k = fields.small("top_k", false);
  out.shared_d_ff = fields.small("shared_d_ff", false);
  out.shared_gate = fields.flag("shared_gate");
  return out;
}

Result<ModelCost> read_model(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail_errno("cannot read the model " + path);
  Json json = Json::parse(file, nullptr, false);
  if (json.is_object() && json.contains("models")) {
    if (!json["models"].is_array() || json["models"].size() != 1) {
      return fail(Errc::invalid_argument, path + ": `models` must hold exactly one model");
    }
    json = Json(json["models"][0]);
  }
  if (!json.is_object())
    return fail(Errc::invalid_argument, path + ": not a JSON object that describes a model");
  std::string problem;
  Fields fields(json, "the model", problem);
  ModelGeometry geometry;
  geometry.name = fields.text("name");
  if (geometry.name.empty()) geometry.name = std::filesystem::path(path).stem().string();
  geometry.d_model = fields.small("d_model", true);
  geometry.linear_parameters = fields.number("linear_parameters_executed_per_token", false);
  for (const Json& part : fields.objects("attention"))
    geometry.attention.push_back(attention_of(part, problem));
  for (const Json& part : fields.objects("recurrent"))
    geometry.recurrent = recurrent_of(part, problem);
  for (const Json& part : fields.objects("ffn"))
    geometry.ffn.push_back(ffn_of(part, problem));
  if (geometry.attention.empty()) fields.complain("needs attention");
  if (!problem.empty()) return fail(Errc::invalid_argument, path + ": " + problem);

  ModelCost model = model_cost(geometry);
  const auto stated = [&](const char* key, std::uint64_t& value) {
    if (json.contains(key)) value = fields.number(key, true);
  };
  stated("kv_bytes_per_token_bf16", model.kv_bytes_per_token);
  stated("checkpoint_bytes_bf16conv_fp32ssm", model.checkpoint_bytes);
  stated("checkpoint_bytes_all_2byte", model.checkpoint_bytes_2byte);
  if (!problem.empty()) return fail(Errc::invalid_argument, path + ": " + problem);
  return model;
}

std::uint64_t scaled(std::uint64_t bytes, double scale) {
  return std::max<std::uint64_t>(
      1, static_cast<std::uint64_t>(std::llround(static_cast<double>(bytes) * scale)));
}

Digest digest_of(const std::string& text) {
  return sha256(std::as_bytes(std::span(text)));
}

}  // namespace

Result<ModelCost> load_model(const std::string& name_or_file) {
  std::error_code ignored;
  if (name_or_file.find('/') != std::string::npos ||
      std::filesystem::is_regular_file(name_or_file, ignored)) {
    return read_model(name_or_file);
  }
  return find_model(name_or_file);
}

Result<NamespaceSpec> namespace_spec(const ModelCost& model, const ModelOptions& options) {
  std::uint64_t state = model.checkpoint_bytes;
  if (options.state_dtype == "2byte") {
    state = model.checkpoint_bytes_2byte;
  } else if (!options.state_dtype.empty() && options.state_dtype != "bf16conv_fp32ssm") {
    return fail(Errc::invalid_argument,
                "unknown state dtype '" + options.state_dtype + "' (bf16conv_fp32ssm, 2byte)");
  }
  NamespaceSpec spec;
  spec.name = model.name;
  spec.cost = model.cost;
  const auto add = [&](const char* name, Need need, std::uint64_t bytes) -> Group& {
    Group& group = spec.groups.emplace_back();
    group.name = name;
    group.need = need;
    group.block_tokens = options.block_tokens;
    group.max_bytes = bytes;
    return group;
  };
  if (model.kv_bytes_per_token != 0) {
    add("attention",
        Need::every,
        scaled(model.kv_bytes_per_token, options.bytes_scale) * options.block_tokens);
  }
  if (model.window_kv_bytes_per_token != 0) {
    add("sliding",
        Need::last,
        scaled(model.window_kv_bytes_per_token, options.bytes_scale) * options.block_tokens)
        .window = model.cost.window;
  }
  if (state != 0) add("recurrent", Need::end, scaled(state, options.bytes_scale));
  spec.model = digest_of("workload model " + model.name);
  std::string layout = "workload layout";
  for (const Group& group : spec.groups)
    layout += " " + group.name + " " + std::to_string(group.max_bytes);
  spec.layout = digest_of(layout);
  SC_TRY(spec.validate());
  return spec;
}

double prefill_seconds(const Cost& cost,
                       std::uint64_t a,
                       std::uint64_t b,
                       double flops_per_second) {
  return cost.flops(a, b) / flops_per_second;
}

}  // namespace statecached
