// Convolutions as products: windows unfolded into columns, which the library multiplies.
//   y[image] [o, p] = weights [o, s] columns[image] [s, p]      s: steps of a window, p: pixels of
//   y dcolumns[image] [s, p] = weights^T [s, o] dy[image] [o, p]  and folded: dx dweights [o, s] =
//   dy [o, images p] columns^T [images p, s]  dy turned so that images are inside
// A window of one element that moves by one needs no columns: they are x.
#include "runtime/base/logging.h"
#include "runtime/kernels/cuda/conv_arguments.h"
#include "runtime/kernels/cuda/cuda_kernel.h"
#include "runtime/kernels/cuda/device/movement.h"
#include "runtime/kernels/cuda/device/unfold.h"

namespace lepton::kernels::cuda {
namespace {

constexpr int64_t kMostColumnBytes = int64_t{2} << 30;

bool IsPlain(const WindowAxisArguments& axis) {
  return axis.extent == 1 && axis.stride == 1 && axis.before == 0 && axis.in == axis.out;
}

struct Columns {
  explicit Columns(const ConvArguments& a)
      : steps(a.in_channels * a.h.extent * a.w.extent),
        pixels(a.h.out * a.w.out),
        all(a.images * steps * pixels),
        plain(IsPlain(a.h) && IsPlain(a.w)) {}
  int64_t steps, pixels, all;
  bool plain;
};

// One group only: each group would be a product of its own.
bool CanMultiply(const KernelRequest& request) {
  const ConvArguments a = ConvArgumentsOf(request);
  return a.groups == 1 && Columns(a).all > 0 &&
         Columns(a).all * static_cast<int64_t>(sizeof(float)) <= kMostColumnBytes;
}

class ConvProduct : public graph::Kernel {
 public:
  ConvProduct(const KernelRequest& request, const ProductShape& shape)
      : device_(DeviceOf(request)),
        a_(ConvArgumentsOf(request)),
        columns_(a_),
        product_(device_.products().Make(shape)) {
    CHECK(product_ != nullptr) << "no plain product of a convolution's columns";
    library_bytes_ = AlignedSize(product_->workspace_bytes());
  }
  size_t workspace_bytes() const override { return library_bytes_ + own_bytes_; }

 protected:
  // Places behind the library's workspace, in order.
  size_t Take(int64_t bytes) {
    const size_t place = library_bytes_ + own_bytes_;
    own_bytes_ += AlignedSize(static_cast<size_t>(bytes));
    return place;
  }
  int64_t element_bytes() const { return a_.bf16 ? sizeof(BF16) : sizeof(float); }
  static char* At(const KernelContext& context, size_t place) {
    return static_cast<char*>(context.workspace()) + place;
  }

  CudaDevice& device_;
  ConvArguments a_;
  const Columns columns_;
  const std::unique_ptr<Product> product_;

 private:
  size_t library_bytes_ = 0, own_bytes_ = 0;
};

class ConvForward final : public ConvProduct {
 public:
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<ConvForward>(request);
  }
  explicit ConvForward(const KernelRequest& request) : ConvProduct(request, ShapeOf(request)) {
    if (!columns_.plain) place_ = Take(columns_.all * element_bytes());
  }
  void Run(const KernelContext& c) override {
    const void* columns = a_.x = c.input(0).data;
    if (!columns_.plain) {
      columns = At(c, place_);
      RunUnfold(a_, {columns_.pixels, columns_.steps * columns_.pixels}, At(c, place_),
                device_.stream());
    }
    product_->Run(
        {.a = c.input(1).data, .b = columns, .y = c.output(0).data, .workspace = c.workspace()});
  }

 private:
  static ProductShape ShapeOf(const KernelRequest& request) {
    const ConvArguments a = ConvArgumentsOf(request);
    const Columns columns(a);
    ProductShape shape{.batch = a.images, .m = a.out_channels, .n = columns.pixels};
    shape.k = columns.steps;
    shape.shared_a = true;
    shape.bf16 = a.bf16;
    return shape;
  }
  size_t place_ = 0;
};

class ConvInputGrad final : public ConvProduct {
 public:
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<ConvInputGrad>(request);
  }
  explicit ConvInputGrad(const KernelRequest& request) : ConvProduct(request, ShapeOf(request)) {
    if (!columns_.plain) place_ = Take(columns_.all * static_cast<int64_t>(sizeof(float)));
  }
  void Run(const KernelContext& c) override {
    void* const dcolumns = columns_.plain ? c.output(0).data : At(c, place_);
    product_->Run(
        {.a = c.input(1).data, .b = c.input(0).data, .y = dcolumns, .workspace = c.workspace()});
    if (columns_.plain) return;
    RunFold(a_, {columns_.pixels, columns_.steps * columns_.pixels},
            static_cast<const float*>(dcolumns), c.output(0).as<float>(), device_.stream());
  }

 private:
  static ProductShape ShapeOf(const KernelRequest& request) {
    const ConvArguments a = ConvArgumentsOf(request);
    const Columns columns(a);
    ProductShape shape{.batch = a.images, .m = columns.steps, .n = columns.pixels};
    shape.k = a.out_channels;
    shape.transpose_a = shape.shared_a = true;
    shape.bf16 = a.bf16;
    return shape;
  }
  size_t place_ = 0;
};

class ConvWeightGrad final : public ConvProduct {
 public:
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<ConvWeightGrad>(request);
  }
  explicit ConvWeightGrad(const KernelRequest& request) : ConvProduct(request, ShapeOf(request)) {
    columns_place_ = Take(columns_.all * element_bytes());
    if (a_.images > 1) dy_place_ = Take(request.inputs[0].shape.elements() * element_bytes());
  }
  void Run(const KernelContext& c) override {
    a_.x = c.input(1).data;
    RunUnfold(a_, {a_.images * columns_.pixels, columns_.pixels}, At(c, columns_place_),
              device_.stream());
    const void* dy = c.input(0).data;
    if (a_.images > 1) {
      RunStrided(Turned(dy, At(c, dy_place_)), device_.stream());
      dy = At(c, dy_place_);
    }
    product_->Run(
        {.a = dy, .b = At(c, columns_place_), .y = c.output(0).data, .workspace = c.workspace()});
  }

 private:
  static ProductShape ShapeOf(const KernelRequest& request) {
    const ConvArguments a = ConvArgumentsOf(request);
    const Columns columns(a);
    ProductShape shape{.m = a.out_channels, .n = columns.steps, .k = a.images * columns.pixels};
    shape.transpose_b = true;
    shape.bf16 = a.bf16;
    return shape;
  }
  // [images, o, p] as [o, images, p].
  StridedArguments Turned(const void* dy, void* to) const {
    StridedArguments turned{.axes = 3};
    const int64_t p = columns_.pixels;
    const int64_t extents[] = {a_.out_channels, a_.images, p};
    const int64_t strides[] = {p, a_.out_channels * p, 1};
    std::copy_n(extents, 3, turned.extents);
    std::copy_n(strides, 3, turned.strides);
    turned.total = a_.images * a_.out_channels * p;
    turned.x = dy;
    turned.y = to;
    turned.bytes = static_cast<int>(element_bytes());
    return turned;
  }
  size_t columns_place_ = 0, dy_place_ = 0;
};

}  // namespace

std::vector<KernelEntry> ConvProductKernels() {
  std::vector<KernelEntry> entries;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    entries.push_back(CudaEntry("conv2d", dtype, "products", &CanMultiply, &ConvForward::Create));
    entries.push_back(
        CudaEntry("conv2d_input_grad", dtype, "products", &CanMultiply, &ConvInputGrad::Create));
    entries.push_back(
        CudaEntry("conv2d_weight_grad", dtype, "products", &CanMultiply, &ConvWeightGrad::Create));
  }
  return entries;
}

}  // namespace lepton::kernels::cuda
