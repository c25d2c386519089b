// RNN, GRU and LSTM, unrolled over the sequence.
#include <algorithm>
#include <cctype>
#include <functional>

#include "runtime/formats/onnx/onnx.pb.h"
#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_recurrent {

// One direction of a recurrent operator. X is [length, batch, features].
struct Direction {
  Id w, r, wb, rb;  // transposed weights; the biases of the input and of the recurrence
  bool reverse;
};

struct Inputs {
  int64_t length, batch, hidden;
  int directions;
  std::vector<Direction> each;
};

Id Part(Builder& b, Id x, int64_t direction) {
  return b.Squeeze(b.Slice(x, 0, direction, 1, 1), {0});
}

// Exporters also name the default ones, for each direction.
void CheckActivations(Call& c, int64_t gates) {
  const auto* given = c.Find("activations");
  if (given == nullptr) return;
  const std::vector<std::string> usual = gates == 1 ? std::vector<std::string>{"tanh"}
                                         : gates == 3
                                             ? std::vector<std::string>{"sigmoid", "tanh"}
                                             : std::vector<std::string>{"sigmoid", "tanh", "tanh"};
  for (int i = 0; i < given->strings_size(); ++i) {
    std::string name = given->strings(i);
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    if (name != usual[static_cast<size_t>(i) % usual.size()]) {
      FailUnsupported("activations other than the default ones");
    }
  }
}

Inputs Read(Call& c, int64_t gates) {
  Builder& b = c.b;
  const Shape x = b.shape(c.in(0)), r = b.shape(c.in(2));
  if (c.Int("layout", 0) != 0) FailUnsupported("layout 1");
  if (c.HasAttribute("clip")) FailUnsupported("clip");
  CheckActivations(c, gates);
  if (x.rank() != 3 || r.rank() != 3) FailInvalid("inputs 0 and 2 must have three axes");
  // It is unrolled.
  if (x[0] < 0) FailUnsupported("a recurrence over an open length");
  const std::string name = c.Text("direction", "forward");
  Inputs inputs{x[0], x[1], r[2], name == "bidirectional" ? 2 : 1, {}};
  if (r[0] != inputs.directions || r[1] != gates * r[2]) FailInvalid("input 2 does not fit");
  if (c.has(4)) {
    for (const int64_t length : c.Integers(4, "sequence_lens")) {
      if (length != inputs.length) FailUnsupported("sequences shorter than the longest");
    }
  }
  const int64_t width = gates * inputs.hidden;
  for (int i = 0; i < inputs.directions; ++i) {
    const Id zeros = b.Expand(b.Like(c.in(0), 0), Shape({2 * width}));
    const Id bias = c.has(3) ? Part(b, c.in(3), i) : zeros;
    inputs.each.push_back({b.Transpose(Part(b, c.in(1), i), {1, 0}),
                           b.Transpose(Part(b, c.in(2), i), {1, 0}), b.Slice(bias, 0, 0, 1, width),
                           b.Slice(bias, 0, width, 1, width), name == "reverse" || i == 1});
  }
  return inputs;
}

Id Initial(Call& c, int index, int direction, const Inputs& inputs) {
  if (c.has(index)) return Part(c.b, c.in(index), direction);
  return c.b.Expand(c.b.Like(c.in(0), 0), Shape({inputs.batch, inputs.hidden}));
}

// The columns of one gate.
Id Gate(Builder& b, Id x, int64_t index, int64_t hidden) {
  return b.Slice(x, 1, index * hidden, 1, hidden);
}

// step(direction, x at a time, state) changes the state, whose first part is the output.
using Step = std::function<void(const Direction&, Id, std::vector<Id>&)>;

void Unroll(Call& c, const Inputs& inputs, const std::vector<int>& initial, const Step& step) {
  Builder& b = c.b;
  std::vector<Id> outputs;
  std::vector<std::vector<Id>> last(initial.size());
  for (int d = 0; d < inputs.directions; ++d) {
    std::vector<Id> state;
    for (const int index : initial) state.push_back(Initial(c, index, d, inputs));
    std::vector<Id> times(static_cast<size_t>(inputs.length));
    for (int64_t i = 0; i < inputs.length; ++i) {
      const int64_t time = inputs.each[d].reverse ? inputs.length - 1 - i : i;
      step(inputs.each[d], Part(b, c.in(0), time), state);
      times[time] = b.Unsqueeze(state[0], {0, 1});
    }
    if (times.empty()) FailInvalid("an empty sequence");
    outputs.push_back(b.Concat(times, 0));
    for (size_t k = 0; k < state.size(); ++k) last[k].push_back(b.Unsqueeze(state[k], {0}));
  }
  c.Set(0, b.Concat(outputs, 1));
  for (size_t k = 0; k < last.size(); ++k) c.Set(static_cast<int>(k) + 1, b.Concat(last[k], 0));
}

void Rnn(Call& c) {
  Builder& b = c.b;
  Unroll(c, Read(c, 1), {5}, [&](const Direction& d, Id x, std::vector<Id>& state) {
    state[0] =
        b.Unary("tanh", b.Add(b.Add(b.Matmul(x, d.w), d.wb), b.Add(b.Matmul(state[0], d.r), d.rb)));
  });
}

void Gru(Call& c) {
  Builder& b = c.b;
  const Inputs inputs = Read(c, 3);
  const int64_t h = inputs.hidden;
  const bool after = c.Int("linear_before_reset", 0) != 0;
  Unroll(c, inputs, {5}, [&](const Direction& d, Id x, std::vector<Id>& state) {
    const Id in = b.Add(b.Matmul(x, d.w), d.wb);
    const Id back = b.Add(b.Matmul(state[0], d.r), d.rb);
    const auto sum = [&](int gate) { return b.Add(Gate(b, in, gate, h), Gate(b, back, gate, h)); };
    const Id update = b.Unary("sigmoid", sum(0));
    const Id reset = b.Unary("sigmoid", sum(1));
    const Id hidden = after ? b.Mul(reset, Gate(b, back, 2, h))
                            : b.Add(b.Matmul(b.Mul(reset, state[0]), Gate(b, d.r, 2, h)),
                                    b.Slice(d.rb, 0, 2 * h, 1, h));
    const Id fresh = b.Unary("tanh", b.Add(Gate(b, in, 2, h), hidden));
    state[0] = b.Add(fresh, b.Mul(update, b.Sub(state[0], fresh)));
  });
}

void Lstm(Call& c) {
  Builder& b = c.b;
  const Inputs inputs = Read(c, 4);
  const int64_t h = inputs.hidden;
  if (c.has(7)) FailUnsupported("peepholes");
  if (c.Int("input_forget", 0) != 0) FailUnsupported("input_forget");
  Unroll(c, inputs, {5, 6}, [&](const Direction& d, Id x, std::vector<Id>& state) {
    const Id sum = b.Add(b.Add(b.Matmul(x, d.w), d.wb), b.Add(b.Matmul(state[0], d.r), d.rb));
    const Id in = b.Unary("sigmoid", Gate(b, sum, 0, h));
    const Id out = b.Unary("sigmoid", Gate(b, sum, 1, h));
    const Id forget = b.Unary("sigmoid", Gate(b, sum, 2, h));
    const Id fresh = b.Unary("tanh", Gate(b, sum, 3, h));
    state[1] = b.Add(b.Mul(forget, state[1]), b.Mul(in, fresh));
    state[0] = b.Mul(out, b.Unary("tanh", state[1]));
  });
}

constexpr std::string_view kFloats = "f16, f32, f64";
constexpr Rule kRules[] = {
    {"GRU", 7, kFloats, Gru},
    {"LSTM", 7, kFloats, Lstm},
    {"RNN", 7, kFloats, Rnn},
};

}  // namespace rules_recurrent

std::span<const Rule> RecurrentRules() {
  return rules_recurrent::kRules;
}

}  // namespace lepton::onnx
