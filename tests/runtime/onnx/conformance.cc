// Runs a folder of ONNX test cases: onnx_conformance DIR [REFUSED]
//   DIR/<case>/model.onnx, DIR/<case>/test_data_set_0/{input,output}_N.pb
// A case passes when every output agrees: type and shape equal, integers equal, floats within
// rtol 1e-3 and atol 1e-7. A case on the list REFUSED (name<TAB>words of the error<TAB>reason) must
// be refused with such an error; a listed one that passes, gives an answer that is wrong, is not
// there or fails for something else, fails.
// The last line is "N passed, N failed, N refused"; the status is 1 when any failed.
//   onnx_conformance --list-ops: the table of docs/onnx-ops.md.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>

#include "runtime/base/file.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"

namespace lepton::onnx {
namespace {

namespace fs = std::filesystem;

Status Compare(const HostTensor& got, const HostTensor& wanted) {
  if (got.type != wanted.type) {
    return Internal("is " + got.type.ToString() + "; wanted " + wanted.type.ToString());
  }
  const bool exact = !IsFloating(got.type.dtype);
  const auto a = AsDoubles(got), b = AsDoubles(wanted);
  const auto exact_a = AsIntegers(got), exact_b = AsIntegers(wanted);
  for (size_t i = 0; i < a.size(); ++i) {
    const bool same = exact ? exact_a[i] == exact_b[i]
                            : a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i])) ||
                                  std::fabs(a[i] - b[i]) <= 1e-7 + 1e-3 * std::fabs(b[i]);
    if (!same) {
      return Internal("element " + std::to_string(i) + " is " + std::to_string(a[i]) + "; wanted " +
                      std::to_string(b[i]));
    }
  }
  return Status::Ok();
}

Status Compare(const HostValue& got, const HostValue& wanted) {
  if (got.kind != wanted.kind || got.items.size() != wanted.items.size()) {
    return Internal("is of another kind or length");
  }
  if (got.kind == HostValue::Kind::kTensor) return Compare(got.tensor, wanted.tensor);
  for (size_t i = 0; i < got.items.size(); ++i) {
    LEPTON_RETURN_IF_ERROR(Compare(got.items[i], wanted.items[i]));
  }
  return Status::Ok();
}

using Infos = google::protobuf::RepeatedPtrField<onnx_proto::ValueInfoProto>;

Result<NamedValues> ReadValues(const fs::path& folder, const std::string& stem,
                               const Infos& infos) {
  NamedValues values;
  for (int i = 0; i < infos.size(); ++i) {
    const fs::path file = folder / (stem + "_" + std::to_string(i) + ".pb");
    if (!fs::exists(file)) continue;
    LEPTON_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file));
    LEPTON_ASSIGN_OR_RETURN(values[infos[i].name()], ParseValue(bytes, infos[i].type()));
  }
  return values;
}

// kInternal: a wrong answer. Any other error: refused.
Status RunCase(const fs::path& folder) {
  LEPTON_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(folder / "model.onnx"));
  onnx_proto::ModelProto proto;
  LEPTON_RETURN_IF_ERROR(ParseModel(bytes, &proto));
  const fs::path data = folder / "test_data_set_0";
  LEPTON_ASSIGN_OR_RETURN(NamedValues inputs, ReadValues(data, "input", proto.graph().input()));
  LEPTON_ASSIGN_OR_RETURN(const NamedValues wanted,
                          ReadValues(data, "output", proto.graph().output()));
  if (wanted.empty()) return Internal("the case has no outputs to compare with");
  ImportOptions options;
  options.external = folder;
  LEPTON_ASSIGN_OR_RETURN(ImportedModel model, Import(proto, inputs, options));
  LEPTON_ASSIGN_OR_RETURN(const NamedValues got, Run(model, inputs));
  for (const auto& [name, value] : wanted) {
    LEPTON_RETURN_IF_ERROR(Compare(got.at(name), value).WithContext(name));
  }
  return Status::Ok();
}

// By name, words that its error has.
std::map<std::string, std::string> ReadList(const fs::path& file) {
  std::map<std::string, std::string> list;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    const size_t tab = line.find('\t');
    if (tab == std::string::npos) continue;
    const size_t end = line.find('\t', tab + 1);
    list[line.substr(0, tab)] = line.substr(tab + 1, end == line.npos ? end : end - tab - 1);
  }
  return list;
}

int RunAll(const fs::path& folder, const std::map<std::string, std::string>& refused) {
  std::vector<fs::path> cases;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (fs::exists(entry.path() / "model.onnx")) cases.push_back(entry.path());
  }
  std::sort(cases.begin(), cases.end());
  int counts[3] = {};
  for (const auto& [name, words] : refused) {
    if (fs::exists(folder / name / "model.onnx")) continue;
    ++counts[1];
    std::cout << name << "\tis on the list of refused cases, but is none\n";
  }
  for (const fs::path& path : cases) {
    const std::string name = path.filename();
    const Status status = RunCase(path);
    const auto listed = refused.find(name);
    const bool wrong = status.code() == StatusCode::kInternal;
    if (status.ok() && listed == refused.end()) {
      ++counts[0];
    } else if (listed != refused.end() && !status.ok() && !wrong &&
               status.message().find(listed->second) != std::string::npos) {
      ++counts[2];
    } else {
      ++counts[1];
      std::cout << name << '\t'
                << (status.ok() ? "passes, but is on the list of refused cases" : status.ToString())
                << '\n';
    }
  }
  std::cout << counts[0] << " passed, " << counts[1] << " failed, " << counts[2] << " refused\n";
  return counts[1] == 0 && counts[0] > 0 ? 0 : 1;
}

int ListOps() {
  std::cout << "# ONNX operators\n\n"
               "What `runtime/formats/onnx` imports. Written by `onnx_conformance --list-ops`; a\n"
               "test fails when it is out of date.\n\n"
               "| operator | operator sets | types |\n|---|---|---|\n";
  for (const OperatorSupport& op : SupportedOperators()) {
    std::cout << "| " << (op.domain.empty() ? "" : op.domain + ".") << op.name << " | " << op.since
              << (op.domain.empty() ? " to " + std::to_string(kNewestOperatorSet) : "") << " | "
              << op.types << " |\n";
  }
  return 0;
}

}  // namespace
}  // namespace lepton::onnx

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() == 1 && arguments[0] == "--list-ops") return lepton::onnx::ListOps();
  if (arguments.empty() || arguments.size() > 2) {
    std::cerr << "usage: onnx_conformance DIR [REFUSED] | --list-ops\n";
    return 2;
  }
  return lepton::onnx::RunAll(arguments[0], arguments.size() > 1
                                                ? lepton::onnx::ReadList(arguments[1])
                                                : std::map<std::string, std::string>());
}
