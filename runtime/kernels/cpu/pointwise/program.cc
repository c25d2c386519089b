#include "runtime/kernels/cpu/pointwise/program.h"

#include <algorithm>

#include "runtime/graph/passes/fusion.h"
#include "runtime/kernels/cpu/dropout_key.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::pointwise {

using graph::kNoValue;
using graph::Node;
using graph::PointwiseRead;
using graph::ValueId;

namespace {

bool IsCast(const Node& node) {
  return node.op->name() == "cast";
}

bool IsDropout(const Node& node) {
  return node.op->name() == "dropout";
}

bool IsFloat(const TensorType& type) {
  return type.dtype == DType::kF32 || type.dtype == DType::kBF16;
}

}  // namespace

bool Program::CanRun(std::span<const Node* const> nodes, std::span<const TensorType> types,
                     bool flat) {
  for (const Node* node : nodes) {
    const TensorType& output = types[node->outputs[0]];
    const bool known =
        IsCast(*node) || IsDropout(*node) || FindFunction(node->op->name()) != nullptr;
    if (!known || !IsFloat(output)) return false;
    // Random numbers come in fours: rows must begin at a multiple of them.
    if (IsDropout(*node) && !flat && output.shape.back() % 4 != 0) return false;
    for (const ValueId input : node->inputs) {
      if (graph::ReadOf(types[input], output.shape) == PointwiseRead::kNo) return false;
    }
  }
  return true;
}

Program::Program(std::span<const Node* const> nodes, ValueId given,
                 std::span<const TensorType> types, std::span<const bool> kept) {
  const auto store = [&](ValueId value) {
    if (kept[value])
      steps_.push_back({.kind = Kind::kStore, .value = value, .a = ValueRegister(value)});
  };
  if (given != kNoValue) {
    Define(given, registers_++);
    store(given);
  }
  for (const Node* node : nodes) {
    const ValueId y = node->outputs[0];
    const Shape& shape = types[y].shape;
    const bool rounds = types[y].dtype == DType::kBF16;
    int result = AddLoaded(*node, shape, types);
    if (result < 0) {
      result = Load(node->inputs[0], shape, types);
      if (!IsCast(*node)) {
        const int b = node->inputs.size() > 1 ? Load(node->inputs[1], shape, types) : -1;
        result = Compute(*node, result, b);
      }
    }
    // A store rounds by itself; only who reads the value afterwards needs it rounded.
    const bool read_again = std::any_of(nodes.begin(), nodes.end(), [&](const Node* other) {
      return std::find(other->inputs.begin(), other->inputs.end(), y) != other->inputs.end();
    });
    if (rounds && read_again) {
      const int rounded = registers_++;
      steps_.push_back({.kind = Kind::kRound, .a = result, .y = rounded});
      result = rounded;
    }
    Define(y, result);
    store(y);
  }
  MergeActivations(types);
  FreeAfterLastUse();
  defined_.clear();
}

bool Program::IsRead(int reg, size_t from) const {
  return std::any_of(steps_.begin() + static_cast<std::ptrdiff_t>(from), steps_.end(),
                     [&](const Step& step) { return step.a == reg || step.b == reg; });
}

void Program::MergeActivations(std::span<const TensorType> types) {
  for (size_t i = 0; i + 1 < steps_.size(); ++i) {
    const Step& step = steps_[i];
    // Stored in bf16 and not read again.
    if (step.kind != Kind::kCompute || steps_[i + 1].kind != Kind::kStore ||
        steps_[i + 1].a != step.y || types[steps_[i + 1].value].dtype != DType::kBF16 ||
        IsRead(step.y, i + 2)) {
      continue;
    }
    const bool merged = step.function->rows != nullptr        ? MergeActivation(i, types)
                        : step.function->grad_rows != nullptr ? MergeGradient(i, types)
                                                              : false;
    if (merged) return MergeActivations(types);
  }
}

// [add a row,] round [, store], the function at `at`, store.
bool Program::MergeActivation(size_t at, std::span<const TensorType> types) {
  Step merged{.kind = Kind::kActivate, .function = steps_[at].function};
  merged.value = steps_[at + 1].value;
  const int rounded = steps_[at].a;
  if (IsRead(rounded, at + 2)) return false;
  size_t first = at;
  if (first > 0 && steps_[first - 1].kind == Kind::kStore && steps_[first - 1].a == rounded) {
    merged.input = steps_[--first].value;
    if (types[merged.input].dtype != DType::kBF16) return false;
  }
  if (first == 0 || steps_[first - 1].kind != Kind::kRound || steps_[first - 1].y != rounded) {
    return false;
  }
  merged.a = steps_[--first].a;
  if (first > 0 && steps_[first - 1].kind == Kind::kAddLoadedRow &&
      steps_[first - 1].y == merged.a && !IsRead(merged.a, at + 2)) {
    merged.bias = steps_[--first].value;
    merged.a = steps_[first].a;
  }
  steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(first),
               steps_.begin() + static_cast<std::ptrdiff_t>(at + 2));
  steps_.insert(steps_.begin() + static_cast<std::ptrdiff_t>(first), merged);
  return true;
}

// Load a whole bf16 value, the gradient at `at`, store.
bool Program::MergeGradient(size_t at, std::span<const TensorType> types) {
  if (at == 0) return false;
  const Step& load = steps_[at - 1];
  if (load.kind != Kind::kLoad || load.y != steps_[at].a || steps_[at].b == load.y ||
      types[load.value].dtype != DType::kBF16 || IsRead(load.y, at + 1)) {
    return false;
  }
  Step merged{.kind = Kind::kActivateGrad, .function = steps_[at].function};
  merged.a = steps_[at].b;
  merged.input = load.value;
  merged.value = steps_[at + 1].value;
  steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(at - 1),
               steps_.begin() + static_cast<std::ptrdiff_t>(at + 1));
  steps_[at - 1] = merged;
  return true;
}

int Program::Compute(const Node& node, int a, int b) {
  Step step{.kind = Kind::kCompute, .a = a, .b = b, .y = registers_++};
  if (IsDropout(node)) {
    step.kind = Kind::kDropout;
    const double rate = node.attributes.Float("rate");
    step.parameter = static_cast<float>(rate);
    step.keep = static_cast<float>(1 / (1 - rate));
    step.stream = static_cast<uint32_t>(node.attributes.Int("stream"));
  } else {
    step.function = FindFunction(node.op->name());
    if (step.function->parameter != nullptr) {
      step.parameter = step.function->parameter(node.attributes);
    }
  }
  steps_.push_back(step);
  return step.y;
}

int Program::AddLoaded(const Node& node, const Shape& shape, std::span<const TensorType> types) {
  if (node.op->name() != "add" && node.op->name() != "bias_add") return -1;
  const int first = ValueRegister(node.inputs[0]), second = ValueRegister(node.inputs[1]);
  if ((first < 0) == (second < 0)) return -1;
  const ValueId loaded = node.inputs[first < 0 ? 0 : 1];
  const PointwiseRead read = graph::ReadOf(types[loaded], shape);
  if (types[loaded].dtype != DType::kF32 || read == PointwiseRead::kScalar) return -1;
  const bool row = read == PointwiseRead::kRow;
  reads_rows_ = reads_rows_ || row;
  steps_.push_back({.kind = row ? Kind::kAddLoadedRow : Kind::kAddLoaded,
                    .value = loaded,
                    .a = first < 0 ? second : first,
                    .y = registers_++});
  return steps_.back().y;
}

int Program::ValueRegister(ValueId value) const {
  for (const auto& [known, reg] : defined_) {
    if (known == value) return reg;
  }
  return -1;
}

int Program::Load(ValueId value, const Shape& shape, std::span<const TensorType> types) {
  if (const int known = ValueRegister(value); known >= 0) return known;
  const PointwiseRead read = graph::ReadOf(types[value], shape);
  const Kind kind = read == PointwiseRead::kFull  ? Kind::kLoad
                    : read == PointwiseRead::kRow ? Kind::kLoadRow
                                                  : Kind::kLoadScalar;
  reads_rows_ = reads_rows_ || kind == Kind::kLoadRow;
  const int reg = registers_++;
  steps_.push_back({.kind = kind, .value = value, .y = reg});
  Define(value, reg);
  return reg;
}

// Until here every result has a register of its own; now a register is used again once nobody reads
// what it holds. Register 0 stays: it may be the caller's.
void Program::FreeAfterLastUse() {
  std::vector<int> last(registers_, -1);
  for (int i = 0; i < static_cast<int>(steps_.size()); ++i) {
    for (const int reg : {steps_[i].a, steps_[i].b}) {
      if (reg >= 0) last[reg] = i;
    }
  }
  std::vector<int> place(registers_, -1);
  std::vector<int> free;
  int used = 1;
  place[0] = 0;
  for (int i = 0; i < static_cast<int>(steps_.size()); ++i) {
    Step& step = steps_[i];
    if (step.y > 0) {
      if (free.empty()) free.push_back(used++);
      place[step.y] = free.back();
      free.pop_back();
    }
    for (const int reg : {step.a, step.b == step.a ? -1 : step.b}) {
      if (reg > 0 && last[reg] == i) free.push_back(place[reg]);
    }
    if (step.y > 0 && last[step.y] < 0) free.push_back(place[step.y]);
    for (int* reg : {&step.a, &step.b, &step.y}) {
      if (*reg >= 0) *reg = place[*reg];
    }
  }
  registers_ = used;
}

void Program::Prefetch(const graph::KernelContext& context, const Block& block) const {
  constexpr int64_t kLine = 64;
  const auto fetch = [&](ValueId value) {
    if (value == kNoValue) return;
    const TensorView& view = context.value(value);
    const auto element = static_cast<int64_t>(DTypeSize(view.type.dtype));
    const char* row =
        view.as<char>() + (block.first_row * block.width + block.first_column) * element;
    for (int64_t i = 0; i < block.rows; ++i, row += block.width * element) {
      for (int64_t byte = 0; byte < block.columns * element; byte += kLine) {
        __builtin_prefetch(row + byte);
      }
    }
  };
  for (const Step& step : steps_) {
    const bool activation = step.kind == Kind::kActivate || step.kind == Kind::kActivateGrad;
    const bool whole = activation || step.kind == Kind::kLoad || step.kind == Kind::kAddLoaded ||
                       step.kind == Kind::kStore;
    if (whole) fetch(step.value);
    if (activation) fetch(step.input);
  }
}

void Program::Run(const graph::KernelContext& context, const Block& block, float* registers,
                  float* given) const {
  const simd::Loops& loops = simd::BestLoops();
  const int64_t count = block.rows * block.pitch;
  // Where each register is: values that are f32 and dense are read where they lie, not copied.
  constexpr int kMostPlaces = 32;
  float* places[kMostPlaces];
  const auto own = [&](int reg) {
    return reg == 0 && given != nullptr ? given : registers + reg * kBlockElements;
  };
  const bool in_place = registers_ <= kMostPlaces;
  for (int reg = 0; in_place && reg < registers_; ++reg) places[reg] = own(reg);
  const auto at = [&](int reg) { return in_place ? places[reg] : own(reg); };
  // Blocks that are dense in memory are moved in one piece.
  const bool dense = block.columns == block.width && block.pitch == block.width;
  const int64_t moves = dense ? 1 : block.rows;
  const int64_t length = dense ? block.rows * block.columns : block.columns;
  const int64_t start = block.first_row * block.width + block.first_column;
  for (const Step& step : steps_) {
    if (in_place && step.y >= 0) places[step.y] = own(step.y);
    const TensorView* view = step.value == kNoValue ? nullptr : &context.value(step.value);
    const bool bf16 = view != nullptr && view->type.dtype == DType::kBF16;
    switch (step.kind) {
      case Kind::kLoad:
        if (bf16) {
          loops.to_f32_rows(moves, length, view->as<uint16_t>() + start, block.width, at(step.y),
                            block.pitch);
        } else if (in_place && dense) {
          places[step.y] = view->as<float>() + start;
        } else {
          loops.copy_rows(moves, length, view->as<float>() + start, block.width, at(step.y),
                          block.pitch);
        }
        break;
      case Kind::kLoadRow:
        // The same row again and again.
        if (bf16) {
          loops.to_f32_rows(block.rows, block.columns, view->as<uint16_t>() + block.first_column, 0,
                            at(step.y), block.pitch);
        } else {
          loops.copy_rows(block.rows, block.columns, view->as<float>() + block.first_column, 0,
                          at(step.y), block.pitch);
        }
        break;
      case Kind::kLoadScalar:
        std::fill_n(at(step.y), count,
                    bf16 ? BF16::ToFloat(*view->as<BF16>()) : *view->as<float>());
        break;
      case Kind::kAddLoaded:
        loops.add_rows(moves, length, at(step.a), block.pitch, view->as<float>() + start,
                       block.width, at(step.y));
        break;
      case Kind::kAddLoadedRow:
        loops.add_rows(block.rows, block.columns, at(step.a), block.pitch,
                       view->as<float>() + block.first_column, 0, at(step.y));
        break;
      case Kind::kCompute:
        step.function->run(step.parameter, count, at(step.a), step.b < 0 ? nullptr : at(step.b),
                           at(step.y));
        break;
      case Kind::kActivate: {
        const bool by_row = step.bias != kNoValue;
        const auto* bias =
            by_row ? context.value(step.bias).as<float>() + block.first_column : nullptr;
        auto* rounded =
            step.input == kNoValue ? nullptr : context.value(step.input).as<uint16_t>() + start;
        (loops.*step.function->rows)(by_row ? block.rows : moves, by_row ? block.columns : length,
                                     at(step.a), block.pitch, bias, rounded,
                                     view->as<uint16_t>() + start, block.width);
        break;
      }
      case Kind::kActivateGrad:
        (loops.*step.function->grad_rows)(
            moves, length, context.value(step.input).as<uint16_t>() + start, block.width,
            at(step.a), block.pitch, view->as<uint16_t>() + start);
        break;
      case Kind::kDropout:
        for (int64_t i = 0; i < moves; ++i) {
          loops.dropout((start + i * block.width) / 4, length,
                        DropoutKey(context.run(), step.stream), step.parameter, step.keep,
                        at(step.a) + i * block.pitch, at(step.y) + i * block.pitch);
        }
        break;
      case Kind::kRound:
        loops.round_bf16(count, at(step.a), at(step.y));
        break;
      case Kind::kStore:
        if (bf16) {
          loops.to_bf16_rows(moves, length, at(step.a), block.pitch, view->as<uint16_t>() + start,
                             block.width);
        } else {
          loops.copy_rows(moves, length, at(step.a), block.pitch, view->as<float>() + start,
                          block.width);
        }
        break;
    }
  }
}

}  // namespace lepton::kernels::pointwise
