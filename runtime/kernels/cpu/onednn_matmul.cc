#include "runtime/kernels/cpu/onednn_matmul.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/onednn_engine.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels {
namespace {

// Large enough for oneDNN to run near its peak, small enough to give several threads work.
constexpr int64_t kTileRows = 256;
constexpr int64_t kTileColumns = 256;

// The matrices that the last two axes make.
int64_t Matrices(const Shape& shape) {
  return shape.rows() / shape[shape.rank() - 2];
}

struct Operands {
  explicit Operands(const graph::KernelRequest& request)
      : transpose_a(request.attributes->Int("transpose_a") != 0),
        transpose_b(request.attributes->Int("transpose_b") != 0),
        batch(request.op == "batch_matmul" ? Matrices(request.outputs[0].shape) : 1),
        rows(request.outputs[0].shape.rows() / batch),
        columns(request.outputs[0].shape.back()),
        inner(transpose_a ? request.inputs[0].shape.rows() / batch
                          : request.inputs[0].shape.back()),
        frozen_b(batch == 1 && !request.frozen.empty() && request.frozen[1]),
        dtype(request.inputs[0].dtype) {}
  // A frozen right side of several tiles is packed: each tile's columns side by side, so that no
  // row of a tile lies a whole matrix row from the next.
  bool packs_b() const { return frozen_b && (columns > kTileColumns || transpose_b); }

  const bool transpose_a;
  const bool transpose_b;
  const int64_t batch;                 // products of equal shape, one after the other
  const int64_t rows, columns, inner;  // of each
  const bool frozen_b;
  DType dtype;
};

using Descriptor = dnnl::matmul::primitive_desc;

// Nothing when oneDNN cannot, or only by its slow reference.
std::optional<Descriptor> Describe(const Operands& op, int64_t rows, int64_t columns) {
  SingleThreadedStream();
  using Data = dnnl::memory::data_type;
  const Data type = op.dtype == DType::kBF16 ? Data::bf16 : Data::f32;
  using Strides = dnnl::memory::dims;
  const Strides a = op.transpose_a ? Strides{1, op.rows} : Strides{op.inner, 1};
  const Strides b = op.packs_b()     ? Strides{columns, 1}
                    : op.transpose_b ? Strides{1, op.inner}
                                     : Strides{op.columns, 1};
  try {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    Descriptor descriptor({{{rows, op.inner}, type, a},
                           {{op.inner, columns}, type, b},
                           {{rows, columns}, Data::f32, Strides{op.columns, 1}}},
                          attributes, OnednnEngine());
    if (std::string_view(descriptor.impl_info_str()).starts_with("ref")) return std::nullopt;
    return descriptor;
  } catch (const dnnl::error&) {
    return std::nullopt;
  }
}

// One piece of the result, with its own memory objects: one thread runs it at a time.
class Tile {
 public:
  Tile(const Operands& op, int64_t product, int64_t row, int64_t column,
       const Descriptor& descriptor, const dnnl::matmul& primitive)
      : primitive_(primitive), scratchpad_bytes_(descriptor.scratchpad_desc().get_size()) {
    const int64_t element = static_cast<int64_t>(DTypeSize(op.dtype));
    a_offset_ = element * (product * op.rows * op.inner + (op.transpose_a ? row : row * op.inner));
    b_offset_ = element * (product * op.inner * op.columns +
                           (op.transpose_b || op.packs_b() ? column * op.inner : column));
    c_offset_ = 4 * ((product * op.rows + row) * op.columns + column);
    const auto memory = [](const dnnl::memory::desc& desc) {
      return dnnl::memory(desc, OnednnEngine(), DNNL_MEMORY_NONE);
    };
    arguments_ = {{DNNL_ARG_SRC, memory(descriptor.src_desc())},
                  {DNNL_ARG_WEIGHTS, memory(descriptor.weights_desc())},
                  {DNNL_ARG_DST, memory(descriptor.dst_desc())},
                  {DNNL_ARG_SCRATCHPAD, memory(descriptor.scratchpad_desc())}};
  }

  void Run(const void* a, const void* b, void* c) {
    dnnl::stream& stream = SingleThreadedStream();
    Point(DNNL_ARG_SRC, a, a_offset_);
    Point(DNNL_ARG_WEIGHTS, b, b_offset_);
    Point(DNNL_ARG_DST, c, c_offset_);
    if (scratchpad_bytes_ > 0) Point(DNNL_ARG_SCRATCHPAD, Scratchpad(scratchpad_bytes_), 0);
    primitive_.execute(stream, arguments_);
  }

 private:
  void Point(int argument, const void* base, int64_t offset) {
    // oneDNN takes its inputs, too, through a pointer to mutable memory; it does not write there.
    char* data = const_cast<char*>(static_cast<const char*>(base)) + offset;
    arguments_.at(argument).set_data_handle(data);
  }

  dnnl::matmul primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
  size_t scratchpad_bytes_;
  int64_t a_offset_, b_offset_, c_offset_;
};

template <typename T>
void PackColumns(const Operands& op, const T* b, T* packed) {
  for (int64_t column = 0; column < op.columns; column += kTileColumns) {
    const int64_t width = std::min(kTileColumns, op.columns - column);
    T* tile = packed + column * op.inner;
    for (int64_t k = 0; k < op.inner; ++k) {
      if (!op.transpose_b) {
        std::copy_n(b + k * op.columns + column, width, tile + k * width);
        continue;
      }
      for (int64_t j = 0; j < width; ++j) tile[k * width + j] = b[(column + j) * op.inner + k];
    }
  }
}

class OnednnMatmul final : public graph::Kernel {
 public:
  explicit OnednnMatmul(const Operands& op) : op_(op) {
    for (int64_t row = 0; row < op.rows; row += kTileRows) {
      for (int64_t column = 0; column < op.columns; column += kTileColumns) {
        const auto descriptor = Describe(op, std::min(kTileRows, op.rows - row),
                                         std::min(kTileColumns, op.columns - column));
        CHECK(descriptor.has_value()) << "oneDNN runs the whole product but not a tile of it";
        const dnnl::matmul primitive(*descriptor);
        for (int64_t product = 0; product < op.batch; ++product) {
          tiles_.emplace_back(op, product, row, column, *descriptor, primitive);
        }
      }
    }
  }

  void Prepare(const graph::KernelContext& context) override { Pack(context.input(1).data); }
  void Run(const graph::KernelContext& context) override {
    Multiply(context.input(0).data, context.input(1).data, context.output(0).data);
  }

  void Pack(const void* b) {
    if (!op_.packs_b()) return;
    const size_t bytes = op_.inner * op_.columns * DTypeSize(op_.dtype);
    if (packed_b_.size() != bytes) packed_b_ = Buffer(bytes);
    if (op_.dtype == DType::kBF16) {
      PackColumns(op_, static_cast<const BF16*>(b), packed_b_.as<BF16>());
    } else {
      PackColumns(op_, static_cast<const float*>(b), packed_b_.as<float>());
    }
  }

  void Multiply(const void* a, const void* b, void* c) {
    if (op_.packs_b()) b = packed_b_.data();
    ComputeLoop(static_cast<int64_t>(tiles_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) tiles_[i].Run(a, b, c);
    });
  }

 private:
  const Operands op_;
  std::vector<Tile> tiles_;
  Buffer packed_b_;
};

class WidenedMatmul final : public graph::Kernel {
 public:
  explicit WidenedMatmul(const Operands& op)
      : frozen_b_(op.frozen_b),
        a_(4 * op.batch * op.rows * op.inner),
        b_(4 * op.batch * op.inner * op.columns),
        product_(op) {}

  void Prepare(const graph::KernelContext& context) override {
    if (!frozen_b_) return;
    Widen(context.input(1), b_);
    product_.Pack(b_.data());
  }

  void Run(const graph::KernelContext& context) override {
    Widen(context.input(0), a_);
    if (!frozen_b_) Widen(context.input(1), b_);
    product_.Multiply(a_.data(), b_.data(), context.output(0).data);
  }

 private:
  static void Widen(const TensorView& from, Buffer& to) {
    constexpr int64_t kGrain = 1 << 15;
    ComputeLoop(from.elements(), kGrain, [&](int64_t begin, int64_t end) {
      simd::BestLoops().to_f32(end - begin, from.as<uint16_t>() + begin, to.as<float>() + begin);
    });
  }
  const bool frozen_b_;
  Buffer a_, b_;
  OnednnMatmul product_;
};

Operands AsF32(const graph::KernelRequest& request) {
  Operands op(request);
  op.dtype = DType::kF32;
  return op;
}

bool CanRunTiles(const Operands& op) {
  const int64_t last_rows = (op.rows - 1) % kTileRows + 1;
  const int64_t last_columns = (op.columns - 1) % kTileColumns + 1;
  for (const int64_t rows : {std::min(kTileRows, op.rows), last_rows}) {
    for (const int64_t columns : {std::min(kTileColumns, op.columns), last_columns}) {
      if (!Describe(op, rows, columns)) return false;
    }
  }
  return true;
}

}  // namespace

bool CanRunOnednnMatmul(const graph::KernelRequest& request) {
  return CanRunTiles(Operands(request));
}

bool PrefersOnednnMatmul(const graph::KernelRequest& request) {
  static const bool has_amx = dnnl::get_effective_cpu_isa() == dnnl::cpu_isa::avx512_core_amx;
  return (has_amx || request.inputs[0].dtype != DType::kBF16) && CanRunOnednnMatmul(request);
}

std::unique_ptr<graph::Kernel> CreateOnednnMatmul(const graph::KernelRequest& request) {
  return std::make_unique<OnednnMatmul>(Operands(request));
}

bool CanRunWidenedMatmul(const graph::KernelRequest& request) {
  return CanRunTiles(AsF32(request));
}

std::unique_ptr<graph::Kernel> CreateWidenedMatmul(const graph::KernelRequest& request) {
  return std::make_unique<WidenedMatmul>(AsF32(request));
}

}  // namespace lepton::kernels
