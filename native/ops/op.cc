#include "ops/op.h"

#include <cmath>

namespace isopolicy {

static std::string textOf(double x) {
  if (std::isnan(x)) return "NaN";
  if (x == std::floor(x) && std::fabs(x) < 1e15) return std::to_string(int64_t(x));
  return std::to_string(x);
}

double OpCall::next(const char* name) {
  if (next_ >= count_) fail(std::string("an argument for ") + name, "none");
  return arguments_[next_++];
}

Tensor OpCall::tensor(const char* name) {
  const double handle = next(name);
  const Tensor* t = context.tensors.find(handle);
  if (t == nullptr)
    fail(std::string(name) + " to be a live tensor", handle == 0 ? "none" : "a tensor that was disposed of");
  if (!device_) {
    device_ = t->device;
    deviceOf_ = name;
  }
  expect(t->device == *device_,
         std::string(name) + " on the device of " + deviceOf_ + ", " + nameOf(*device_), nameOf(t->device));
  return *t;
}

std::optional<Tensor> OpCall::optionalTensor(const char* name) {
  if (next_ < count_ && arguments_[next_] == 0) {
    next_++;
    return std::nullopt;
  }
  return tensor(name);
}

double OpCall::number(const char* name) {
  const double x = next(name);
  if (!std::isfinite(x)) fail(std::string(name) + " to be a finite number", textOf(x));
  return x;
}

int64_t OpCall::integer(const char* name, int64_t min, int64_t max) {
  const double x = next(name);
  if (!(x == std::floor(x)) || x < double(min) || x > double(max)) {
    fail(std::string(name) + " to be an integer from " + std::to_string(min) + " to " + std::to_string(max),
         textOf(x));
  }
  return int64_t(x);
}

Shape OpCall::shape(const char* name) {
  const int64_t rank = integer(name, 0, Shape::kMaxRank);
  Shape s;
  for (int64_t i = 0; i < rank; i++) s.dims[s.rank++] = integer(name, 0);
  return s;
}

static std::string shapeText(const Shape& shape, const char* symbols) {
  return *symbols ? std::string(symbols) + " = " + shape.text() : shape.text();
}

void OpCall::expectShape(const char* name, const Tensor& t, const Shape& shape, const char* symbols) const {
  if (t.shape != shape) fail(std::string(name) + " of shape " + shapeText(shape, symbols), t.shape.text());
}

void OpCall::expectRank(const char* name, const Tensor& t, int rank, const char* symbols) const {
  if (t.shape.rank != rank) {
    fail(std::string(name) + " of " + std::to_string(rank) + " dimensions" + (*symbols ? " " : "") + symbols,
         t.shape.text());
  }
}

void OpCall::expectDtype(const char* name, const Tensor& t, DType dtype) const {
  if (t.dtype != dtype) fail(std::string(name) + " of dtype " + nameOf(dtype), nameOf(t.dtype));
}

void OpCall::expectFloat(const char* name, const Tensor& t) const {
  if (!isFloat(t.dtype)) fail(std::string(name) + " of dtype fp32, fp16 or bf16", nameOf(t.dtype));
}

Stream& OpCall::stream() {
  Stream& own = context.on(device()).stream;
  const Stream* recording = context.recording();
  if (recording != nullptr && recording != &own)
    fail("ops on the device that is being recorded", nameOf(device()));
  return own;
}

Tensor OpCall::output(DType dtype, const Shape& shape) {
  if (device() == Device::cuda && isEmulated(dtype))
    fail("fp32, fp16, bf16 or int32 on cuda (emulated formats are computed on the cpu)", nameOf(dtype));
  stream();
  Tensor t;
  writeOutput(context.allocate(device(), dtype, shape, t), t);
  return t;
}

Tensor OpCall::outputLike(const char* name, const Tensor& like) {
  const auto out = optionalTensor("out");
  if (!out) return output(like.dtype, like.shape);
  expectShape("out", *out, like.shape);
  expectDtype("out", *out, like.dtype);
  expect(out->data() == like.data() || !out->overlaps(like),
         std::string("out to be ") + name + " or to have memory of its own",
         std::string("memory that ") + name + " uses in part");
  return *out;
}

void OpCall::outputView(const Tensor& base, int64_t byteOffset, DType dtype, const Shape& shape) {
  Tensor t;
  const double handle = context.view(base, byteOffset, dtype, shape, t);
  writeOutput(handle, t);
}

void OpCall::discardOutputs() {
  for (int i = 0; i < outputCount_; i++) context.tensors.remove(handles_[i]);
  outputCount_ = 0;
}

void OpCall::writeOutput(double handle, const Tensor& t) {
  outputs_[written_++] = handle;
  outputs_[written_++] = double(t.dtype);
  outputs_[written_++] = double(t.device);
  outputs_[written_++] = t.shape.rank;
  for (int i = 0; i < t.shape.rank; i++) outputs_[written_++] = double(t.shape.dims[i]);
  handles_[outputCount_++] = handle;
}

}  // namespace isopolicy
